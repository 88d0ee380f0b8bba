"""What blocks that are not final cost, by how many there are: each is a load of each stream.

No claim of its own, but what docs/decisions.md says of it rests on: no head block is folded before
it is final, so a canon row names four loads for each. Measured by depth are the publisher's CPU a
block and ClickHouse's for the row (the least of `ROUNDS`), what its rows take on disk after
merges, and a query's constant part and a scan of the open partition (medians; CPU is the mean).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds_of, record
from infra.clickhouse.server import EmbeddedServer
from schemas.chains import load_chains
from schemas.segments import BlockRef, ForkUpdate, Lane, Stream
from schemas.tables import CORE_TABLES
from sinks.canon import Canon
from sinks.canon_table import append_canon
from sinks.connection import Connection
from sinks.fold_plan import FoldSettings, plan_folds
from sinks.ledger import LedgerRow
from sinks.migrate import prepare_database

DEPTHS = (64, 300, 900, 3_000, 7_200)
"""Blocks that are not final: Ethereum has 64 or more, a chain of two seconds a block up to 900."""
FOLD_BLOCKS = 40
BLOCKS, ROUNDS, QUERY_ROUNDS = 60, 4, 15
LOGS_A_BLOCK = 100
STREAMS: tuple[Stream, ...] = ("blocks", "logs", "events", "aggregates")
FACTS = load_chains()["local"].resized(segment_blocks=10, partition_blocks=100_000)
QUERIES = {
    "constant": "SELECT count() FROM local.logs WHERE block_number > 1000000000",
    "scan": "SELECT sum(log_index) FROM local.logs",
}


def ref(number: int) -> BlockRef:
    """A block of the only branch there is."""
    return BlockRef(number, number.to_bytes(32))


class Head:
    """A canon that follows a head whose blocks become final `depth` blocks later."""

    def __init__(self, connection: Connection, depth: int) -> None:
        self.connection, self.depth, self.number = connection, depth, 0
        self.draw = random.Random(depth)
        self.canon = Canon(FACTS, dict.fromkeys(STREAMS), 1, 1)
        genesis = ForkUpdate(1, ref(0), None, ref(0), (), (ref(0),), 0)
        assert self.canon.apply_fork(genesis, 0)

    def grow(self, *, write: bool) -> None:
        """One block more, in all streams; its canon row, if `write`."""
        self.number += 1
        final = ref(max(0, self.number - self.depth))
        update = ForkUpdate(1, ref(self.number), None, final, (), (ref(self.number),), 0)
        assert self.canon.apply_fork(update, 0)
        self.canon.add([self.row(stream, self.number, self.number) for stream in STREAMS])
        if self.number % FOLD_BLOCKS == 0:
            self.fold()
        change = self.canon.step(0)
        if write:
            assert change is not None
            append_canon(self.connection, "local", change.row, datetime.now(UTC))

    def fold(self) -> None:
        """Let one load take the place of those that are final, as the compaction does."""
        for fold in plan_folds(self.canon, FoldSettings()):
            stream = next(stream for stream in STREAMS if stream == fold.stream)
            load_id = self.draw.getrandbits(64)
            spans = [(first, last) for first, last, _ in fold.segments]
            assert self.canon.fold([self.row(stream, *span, load_id) for span in spans])

    def row(self, stream: Stream, first: int, last: int, load_id: int | None = None) -> LedgerRow:
        """The ledger's word of some blocks in one stream."""
        lane: Lane = "head" if load_id is None else "history"
        load_id = self.draw.getrandbits(64) if load_id is None else load_id
        return LedgerRow(stream, lane, first, last, ref(last).hash, "", 1, load_id, (), (), ())

    def loads(self, stream: Stream) -> list[int]:
        """The visible load of each block."""
        tiles = self.canon.tilings[stream].tiles(0)
        return [t.load_id for t in tiles for _ in range(t.from_block, t.to_block + 1)]


def fill(connection: Connection, head: Head) -> None:
    """The open partition's logs, under the loads that the canon names."""
    loads = head.loads("logs")
    connection.execute(
        "INSERT INTO local.logs_open (block_number, block_hash, log_index, load_id) SELECT "
        f"intDiv(number, {LOGS_A_BLOCK}) + 1, toFixedString('', 32), number % {LOGS_A_BLOCK}, "
        f"{loads}[intDiv(number, {LOGS_A_BLOCK}) + 1] "
        f"FROM numbers({head.number * LOGS_A_BLOCK})",
        settings={"max_query_size": 1 << 22},
    )


def measure(connection: Connection, pid: int, depth: int) -> dict[str, Any]:
    """The figures of one depth."""
    for table in ("canon", "logs_open"):
        connection.execute(f"TRUNCATE TABLE local.{table} SYNC")
    head = Head(connection, depth)
    for _ in range(depth):
        head.grow(write=False)
    own: list[float] = []
    server: list[float] = []
    for _ in range(ROUNDS):
        spent, started = cpu_seconds_of(pid), time.process_time()
        for _ in range(BLOCKS):
            head.grow(write=True)
        own.append((time.process_time() - started) * 1e3 / BLOCKS)
        server.append((cpu_seconds_of(pid) - spent) * 1e3 / BLOCKS)
    fill(connection, head)
    shown = head.canon.shown
    assert shown is not None
    queries = {name: asked(connection, pid, sql) for name, sql in QUERIES.items()}
    connection.execute("OPTIMIZE TABLE local.canon FINAL")
    merged = {name: asked(connection, pid, sql) for name, sql in QUERIES.items()}
    size = connection.value(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'canon'"
    )
    return {
        "loads": len(shown.loads),
        "publisher_cpu_ms_a_block": round(min(own), 2),
        "clickhouse_cpu_ms_a_row": round(min(server), 2),
        "canon_bytes_a_row": round(size / (ROUNDS * BLOCKS)),
        "queries": queries,
        "queries_canon_merged": merged,
    }


def asked(connection: Connection, pid: int, sql: str) -> dict[str, float]:
    """Median wall and mean CPU milliseconds of a query."""
    times = []
    spent = cpu_seconds_of(pid)
    for _ in range(QUERY_ROUNDS):
        started = time.perf_counter()
        connection.execute(sql)
        times.append((time.perf_counter() - started) * 1e3)
    cpu = (cpu_seconds_of(pid) - spent) * 1e3 / QUERY_ROUNDS
    return {"wall_ms": round(sorted(times)[QUERY_ROUNDS // 2], 1), "cpu_ms": round(cpu, 1)}


def run(depths: Sequence[int] = DEPTHS) -> dict[str, Any]:
    """Measure each depth."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-loads-") as folder,
        EmbeddedServer(Path(folder) / "data") as server,
        Connection(server.endpoint()) as connection,
    ):
        prepare_database(connection, "local", CORE_TABLES, FACTS, 1337)
        return {f"{depth:,}": measure(connection, server.pid, depth) for depth in depths}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="in blocks")
    record("visible_loads", run(parser.parse_args(words).depths))


if __name__ == "__main__":
    main()
