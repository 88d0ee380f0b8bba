"""Blocks and loads in, what ClickHouse's tables would show under a canon row out."""

from __future__ import annotations

from schemas.segments import BlockRef, Stream
from sinks.canon_row import CanonRow
from sinks.ledger import LedgerRow
from tests.sinks.canon_ledger import STREAMS, ref
from tests.sinks.canon_rows import Block


class Tables:
    """Every block that ever was, and the rows of each load."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, Block] = {}
        """Height and parent by hash."""
        self.open: dict[Stream, dict[int, list[Block]]] = {stream: {} for stream in STREAMS}
        """Blocks of each load of `T_open`."""
        self.sealed: dict[int, dict[Stream, list[Block]]] = {}
        """Blocks of each partition of `T_sealed`."""
        self.ledger: list[LedgerRow] = []
        self.legal: set[bytes] = set()
        """Blocks that were canonical at some time."""

    def make(self, number: int) -> BlockRef:
        parent = ref(0)
        self.blocks[parent.hash] = (0, b"none")
        for height in range(1, number + 1):
            child = ref(height)
            self.blocks[child.hash] = (height, parent.hash)
            parent = child
        return parent

    def legal_up_to(self, head: BlockRef) -> None:
        block_hash = head.hash
        while block_hash in self.blocks and block_hash not in self.legal:
            self.legal.add(block_hash)
            block_hash = self.blocks[block_hash][1]

    def path(self, head: BlockRef, first: int) -> list[Block]:
        found, block_hash = [], head.hash
        while block_hash in self.blocks and self.blocks[block_hash][0] >= first:
            found.append((self.blocks[block_hash][0], block_hash))
            block_hash = self.blocks[block_hash][1]
        return found[::-1]

    def read_ancestors(self, block: BlockRef, lowest: int) -> list[BlockRef]:
        """What `sinks.fork_gap` reads of the rows that are stored."""
        stored = {block_hash for rows in self.open["blocks"].values() for _, block_hash in rows}
        at, below = block.hash, []
        while at in stored and self.blocks[at][0] > lowest:
            at = self.blocks[at][1]
            below.append(BlockRef(self.blocks[at][0], at))
        return below[::-1]

    def stored(self, stream: Stream, row: CanonRow) -> list[Block]:
        """What the views show of a stream under a canon row."""
        found = [
            block
            for load in row.loads
            for block in self.open[stream].get(load, ())
            if row.floor <= block[0] <= row.head.number and block[0] // 20 not in row.sealed
        ]
        for partition in row.sealed:
            found += self.sealed[partition][stream]
        return found

    def outside(self, row: CanonRow) -> bool:
        """Whether a load of a canon row holds blocks that the row does not show."""
        return any(
            not row.floor <= number <= row.head.number
            for stream in STREAMS
            for load in row.loads
            for number, _ in self.open[stream].get(load, ())
        )
