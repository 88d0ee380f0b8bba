"""A seed in, a small synthetic chain with reorgs and the loads that hold it out.

Every block's rows follow from its hash, so that what a database may show at a head is known
exactly: the sums of the manifests along the chain that ends there.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Sequence

import numpy as np

from processors.fork import Applied, ForkState
from processors.reorg import advance, from_blocks, snapshot
from schemas.chains import ChainFacts, load_chains
from schemas.columns import ColumnBlock
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved, Lane, Stream
from schemas.tables import BLOCK_IDENTITY, ColumnSpec, Table
from sinks.checksum import block_checksums, checksum_sql
from sinks.connection import Connection
from sinks.ddl import OPEN
from sinks.ledger import LedgerRow, append_ledger
from sinks.load_block import load_block

FACTS: ChainFacts = load_chains()["local"].resized(segment_blocks=5, partition_blocks=40)
STREAMS: tuple[Stream, ...] = ("blocks", "logs", "events")
VERSIONS: dict[str, str | None] = {"blocks": "vb", "logs": "vl", "events": "ve"}

INDEX = ColumnSpec("log_index", "u32", "Position in the block.")
BLOCKS = Table(
    "blocks",
    "blocks",
    "A block.",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("parent_hash", "bytes32", "The parent."),
        ColumnSpec("transaction_count", "u32", "Transactions."),
        ColumnSpec("log_count", "u32", "Logs."),
    ),
    ("block_number", "block_hash"),
    ("block_number", "block_hash"),
)
TRANSACTIONS = Table(
    "transactions",
    "blocks",
    "A transaction.",
    (*BLOCK_IDENTITY, ColumnSpec("transaction_index", "u32", "Position.")),
    ("block_number", "transaction_index"),
    ("block_number", "block_hash", "transaction_index"),
)
LOGS = Table(
    "logs",
    "logs",
    "A log.",
    (*BLOCK_IDENTITY, INDEX, ColumnSpec("address", "bytes20", "Contract.")),
    ("address", "block_number", "log_index"),
    ("block_number", "block_hash", "log_index"),
)
TRANSFERS = Table(
    "transfers",
    "events",
    "A transfer.",
    (*BLOCK_IDENTITY, INDEX, ColumnSpec("value", "u64", "How much.")),
    ("block_number", "log_index"),
    ("block_number", "block_hash", "log_index"),
)
RARE = Table(
    "rare",
    "events",
    "An event that hardly ever happens.",
    (*BLOCK_IDENTITY, INDEX),
    ("block_number", "log_index"),
    ("block_number", "block_hash", "log_index"),
)
TABLES = (BLOCKS, TRANSACTIONS, LOGS, TRANSFERS, RARE)

Manifest = tuple[tuple[int, int], ...]
"""(rows, checksum) of each of TABLES."""


def counts(block_hash: bytes) -> dict[str, int]:
    """How many rows a block has in each table."""
    digest = hashlib.blake2b(block_hash, digest_size=8).digest()
    logs = digest[0] % 7
    return {
        "blocks": 1,
        "transactions": digest[1] % 4,
        "logs": logs,
        "transfers": logs // 2,
        "rare": int(digest[2] < 4),
    }


def rows_of(table: Table, blocks: Sequence[tuple[BlockRef, bytes]]) -> ColumnBlock:
    """The rows of a table for blocks with their parents' hashes."""
    rows = [
        (ref, parent, index)
        for ref, parent in blocks
        for index in range(counts(ref.hash)[table.name])
    ]
    if not rows:
        return ColumnBlock(table.name, 0, {})

    def fixed(values: list[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)

    number = np.array([ref.number for ref, _, _ in rows], np.uint64)
    index = np.array([at for _, _, at in rows], np.uint32)
    columns = {
        "block_number": number,
        "block_hash": fixed([ref.hash for ref, _, _ in rows]),
        "block_time": (number * 12).astype(np.uint32),
        "parent_hash": fixed([parent for _, parent, _ in rows]),
        "transaction_count": np.array(
            [counts(ref.hash)["transactions"] for ref, _, _ in rows], np.uint32
        ),
        "log_count": np.array([counts(ref.hash)["logs"] for ref, _, _ in rows], np.uint32),
        "transaction_index": index,
        "log_index": index * 2 if table.name == "transfers" else index,
        "address": fixed([ref.hash[at : at + 20] for ref, _, at in rows]),
        "value": number + index,
    }
    names = [spec.name for spec in table.columns]
    return ColumnBlock(table.name, len(rows), {name: columns[name] for name in names})


def write_load(
    connection: Connection,
    database: str,
    stream: Stream,
    lane: Lane,
    segments: Sequence[Sequence[tuple[BlockRef, bytes]]],
    load_id: int,
    generation: int = 1,
    *,
    with_ledger: bool = True,
) -> list[LedgerRow]:
    """Insert a load and its ledger rows; segments are blocks with their parents' hashes."""
    tables = [table for table in TABLES if table.stream == stream]
    by_table = {table.name: [rows_of(table, blocks) for blocks in segments] for table in tables}
    for table in tables:
        if any(block.rows for block in by_table[table.name]):
            native = load_block(table, by_table[table.name], load_id)
            connection.insert_block(f"{database}.{table.name}{OPEN}", native)
    ledger = [
        LedgerRow(
            stream,
            lane,
            blocks[0][0].number,
            blocks[-1][0].number,
            blocks[-1][0].hash,
            VERSIONS[stream] or "",
            generation,
            load_id,
            tuple(table.name for table in tables),
            tuple(by_table[table.name][at].rows for table in tables),
            tuple(block_checksums(table, [by_table[table.name][at]])[0] for table in tables),
        )
        for at, blocks in enumerate(segments)
    ]
    if with_ledger:
        append_ledger(connection, database, ledger)
    return ledger


class SmallChain:
    """The node's chain, the reorg agent's state, and what may be shown at each head."""

    def __init__(self, seed: int, history_blocks: int) -> None:
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.parents: dict[bytes, bytes] = {}
        self.numbers: dict[bytes, int] = {}
        self.sums: dict[bytes, Manifest] = {b"": tuple((0, 0) for _ in TABLES)}
        self.legal: set[bytes] = set()
        parent = BlockRef(-1, b"")
        refs = []
        for _ in range(history_blocks):
            parent = self.child(parent)
            refs.append(parent)
        self.fork: ForkState = from_blocks(1, parent)
        self.history = refs
        self.allow(parent)

    @property
    def head(self) -> BlockRef:
        return self.fork.head

    def child(self, parent: BlockRef) -> BlockRef:
        block_hash = hashlib.blake2b(parent.hash + self.rng.randbytes(8), digest_size=32).digest()
        ref = BlockRef(parent.number + 1, block_hash)
        blocks = [rows_of(table, [(ref, parent.hash or bytes(32))]) for table in TABLES]
        with self.lock:
            self.parents[block_hash], self.numbers[block_hash] = parent.hash, ref.number
            before = self.sums[parent.hash]
            self.sums[block_hash] = tuple(
                (rows + block.rows, (checksum + block_checksums(table, [block])[0]) % 2**64)
                for (rows, checksum), table, block in zip(before, TABLES, blocks, strict=True)
            )
        return ref

    def allow(self, head: BlockRef) -> None:
        """Every prefix of a chain that was canonical is legal."""
        with self.lock:
            block_hash = head.hash
            while block_hash and block_hash not in self.legal:
                self.legal.add(block_hash)
                block_hash = self.parents[block_hash]

    def extend(self, blocks: int = 1, back: int = 0) -> tuple[list[BlockRef], list[ForkUpdate]]:
        """Let the node's chain lose `back` blocks and grow by `blocks`."""
        floor = self.fork.finalized.number - self.fork.chain[0].number
        parent = self.fork.chain[max(floor, len(self.fork.chain) - 1 - back)]
        made = []
        for _ in range(blocks):
            parent = self.child(parent)
            made.append(parent)
        updates = []
        for ref in made[:-1]:
            updates += self.observe(ref, is_head=False)
        updates += self.observe(parent, is_head=True)
        return made, updates

    def observe(self, ref: BlockRef, *, is_head: bool) -> list[ForkUpdate]:
        parent = self.parents[ref.hash]
        return self.follow(HeadObserved(1, ref.number, ref.hash, parent, 0, 0, "a", is_head))

    def finalize(self, depth: int) -> list[ForkUpdate]:
        chain = self.fork.chain
        if len(chain) <= depth:
            return []
        ref = chain[-1 - depth]
        return self.follow(FinalityAdvanced(1, "finalized", ref.number, ref.hash, 0))

    def follow(self, observed: HeadObserved | FinalityAdvanced) -> list[ForkUpdate]:
        self.fork, events = advance(self.fork, observed)
        updates = [event.update for event in events if isinstance(event, Applied)]
        for update in updates:
            self.allow(update.head)
        return updates

    def snapshot_from(self, base: BlockRef | None) -> list[ForkUpdate]:
        """What a reorg agent says that starts again at a stored final block."""
        final = self.fork.finalized
        if base is None or base.number >= final.number:
            return [snapshot(self.fork, 0)]
        path = [self.head]
        while path[-1].hash != base.hash:
            parent = self.parents[path[-1].hash]
            path.append(BlockRef(self.numbers[parent], parent))
        whole = ForkUpdate(1, self.head, None, base, (), tuple(path[::-1]), 0)
        return [whole, ForkUpdate(1, self.head, None, final, (), (), 0)]

    def with_parents(self, refs: Sequence[BlockRef]) -> list[tuple[BlockRef, bytes]]:
        return [(ref, self.parents[ref.hash] or bytes(32)) for ref in refs]

    def path(self, head: BlockRef, first: int) -> list[BlockRef]:
        """The blocks from height `first` up to `head`."""
        found = [head]
        while found[-1].number > first:
            parent = self.parents[found[-1].hash]
            found.append(BlockRef(self.numbers[parent], parent))
        return found[::-1]


STATE_SQL = (
    "SELECT * FROM "
    + " CROSS JOIN ".join(
        f"(SELECT count() AS n_{table.name}, {checksum_sql(table)} AS c_{table.name} "
        f"FROM {table.name}) AS s_{table.name}"
        for table in TABLES
    )
    + """ CROSS JOIN (
    SELECT hex(argMax(block_hash, block_number)) AS head FROM blocks
) AS tip CROSS JOIN (
    SELECT count() AS joined, countIf(b.log_count != l.n OR intDiv(l.n, 2) != t.n) AS unequal,
        countIf(b.found = 0) AS orphans
    FROM (
        SELECT block_hash, log_count, block_number = 0
            OR parent_hash IN (SELECT block_hash FROM blocks) AS found
        FROM blocks
    ) AS b
    LEFT JOIN (SELECT block_hash, count() AS n FROM logs GROUP BY block_hash) AS l
        ON b.block_hash = l.block_hash
    LEFT JOIN (SELECT block_hash, count() AS n FROM transfers GROUP BY block_hash) AS t
        ON b.block_hash = t.block_hash
) AS joins"""
)
"""Every view, and a join of three of them, in one query."""

State = tuple[bytes, Manifest, tuple[int, int, int]]


def read_state(connection: Connection, **settings: object) -> State:
    """The visible head's hash, what every view holds, and the join: one query's word."""
    (row,) = connection.execute(STATE_SQL, settings=settings)
    sums = tuple((row[2 * at], row[2 * at + 1]) for at in range(len(TABLES)))
    head, *joins = row[2 * len(TABLES) :]
    return bytes.fromhex(head) if row[0] else b"", sums, (joins[0], joins[1], joins[2])


def problem_of(chain: SmallChain, state: State) -> str:
    """What is wrong with a state that was read; '' where a legal chain had it."""
    head, sums, (blocks, unequal, orphans) = state
    with chain.lock:
        if head and head not in chain.legal:
            return f"block {head.hex()} was never canonical"
        number = chain.numbers.get(head, -1)
        asked = chain.sums[head]
    if sums != asked:
        return f"at head {number} the views hold {sums}, the chain has {asked}"
    if (blocks, unequal, orphans) != (number + 1, 0, 0):
        return (
            f"at head {number} the join gives {blocks} blocks, {unequal} unequal, {orphans} orphans"
        )
    return ""
