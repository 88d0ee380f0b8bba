"""A seed in, random loads, reorgs, folds, seals and restarts around a Canon out, all checked."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import cast

from processors.fork import Applied, ForkState
from processors.reorg import advance, from_blocks, snapshot
from schemas.chains import ChainFacts
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved, Lane, Stream
from sinks.canon import Canon
from sinks.canon_row import CanonRow, CanonSettings, Change, Missing
from sinks.fork_gap import tell_joined
from sinks.tiling import Piece
from tests.sinks.canon_ledger import FACTS, STREAMS, VERSIONS, ledger, ref
from tests.sinks.canon_rows import assert_added, assert_follows, assert_removed, assert_whole
from tests.sinks.canon_tables import Tables


class World(Tables):
    """The state machine beside a model of ClickHouse's tables, checked after every row."""

    PATIENCE = 20
    """Turns until what was delivered, and asked for, is visible."""

    def __init__(self, seed: int, facts: ChainFacts = FACTS, floor: int = 3) -> None:
        super().__init__()
        self.rng, self.facts, self.floor = random.Random(seed), facts, floor
        self.clock, self.load_id = 0, 0
        size = facts.segment_blocks
        self.anchor = self.make((floor // size + self.rng.randrange(1, 6)) * size - 1)
        self.fork: ForkState = from_blocks(1, self.anchor)
        self.legal_up_to(self.anchor)
        self.pending: list[ForkUpdate] = [snapshot(self.fork, 0)]
        self.canon = Canon(facts, VERSIONS, floor, 1, settings=CanonSettings(1_000, 5_000))
        self.rows: list[CanonRow] = []
        self.reorgs = 0
        self.folds, self.seals, self.absences, self.doubts, self.untold = 0, 0, 0, 0, 0

    # What happens

    def grow(self) -> None:
        """The node's chain grows, or moves to another branch."""
        rng, fork = self.rng, self.fork
        back = rng.randrange(0, 6) if rng.random() < 0.3 else 0
        index = max(fork.finalized.number - fork.chain[0].number, len(fork.chain) - 1 - back)
        parent = fork.chain[index]
        for _ in range(rng.randrange(0 if back else 1, 4)):
            digest = hashlib.blake2b(parent.hash, digest_size=6).hexdigest()
            child = ref(parent.number + 1, f"{rng.randrange(4)}.{digest}")
            self.blocks[child.hash] = (child.number, parent.hash)
            self.observe(child, is_head=False)
            parent = child
        self.observe(parent, is_head=True)

    def observe(self, block: BlockRef, *, is_head: bool) -> None:
        parent = self.blocks[block.hash][1]
        self.follow(HeadObserved(1, block.number, block.hash, parent, 0, 0, "a", is_head))

    def finalize(self) -> None:
        chain = self.fork.chain
        block = chain[self.rng.randrange(len(chain))]
        self.follow(FinalityAdvanced(1, "finalized", block.number, block.hash, 0))

    def follow(self, observed: HeadObserved | FinalityAdvanced) -> None:
        self.fork, events = advance(self.fork, observed)
        for event in events:
            if isinstance(event, Applied):
                self.pending.append(event.update)
                self.legal_up_to(event.update.head)

    def write(self, stream: Stream, pieces: list[tuple[int, BlockRef]], lane: Lane) -> None:
        """One load, sometimes without its ledger rows (a zombie that died)."""
        self.load_id += 1
        rows = []
        for first, last in pieces:
            rows += self.path(last, first)
        assert len(rows) == pieces[-1][1].number - pieces[0][0] + 1
        self.open[stream][self.load_id] = rows
        if self.rng.random() < 0.9:
            written = [ledger(stream, self.load_id, first, last, lane) for first, last in pieces]
            self.ledger += written
            self.canon.add(written)

    def write_history(self) -> None:
        final = self.fork.finalized
        size = self.facts.segment_blocks
        count = (final.number + 1) // size
        first_segment = self.floor // size
        if count <= first_segment:
            return
        start = self.rng.randrange(first_segment, count)
        stop = min(count, start + self.rng.randrange(1, 3))
        stop = min(stop, (start * size // 20 + 1) * 20 // size)
        by_number = dict(self.path(final, 0))
        pieces = [
            (n * size, BlockRef(n * size + size - 1, by_number[n * size + size - 1]))
            for n in range(start, stop)
        ]
        self.write(self.rng.choice(STREAMS), pieces, "history")

    def write_head(self) -> None:
        stream = self.rng.choice(STREAMS)
        heads = [h for h, (number, _) in self.blocks.items() if number > self.anchor.number]
        if not heads:
            return
        canonical = [block.hash for block in self.fork.chain if block.hash in self.blocks]
        block_hash = self.rng.choice(canonical if self.rng.random() < 0.8 else heads)
        number = self.blocks[block_hash][0]
        if number <= self.anchor.number:
            return
        pieces = [(number, BlockRef(number, block_hash))]
        while self.rng.random() < 0.15 and pieces[0][0] % 20 and pieces[0][0] > self.anchor.number:
            block_hash = self.blocks[pieces[0][1].hash][1]
            number = self.blocks[block_hash][0]
            pieces.insert(0, (number, BlockRef(number, block_hash)))
        self.write(stream, pieces, "head")

    def feed(self) -> None:
        """What a healthy pipeline does: load the next block that a stream lacks."""
        canonical = dict(self.path(self.fork.head, 0))
        for stream in STREAMS:
            number = self.canon.tilings[stream].top + 1
            first = self.facts.segment_start(number)
            last = first + self.facts.segment_blocks - 1
            if number <= self.anchor.number:
                self.write(stream, [(first, BlockRef(last, canonical[last]))], "history")
            elif number in canonical:
                self.write(stream, [(number, BlockRef(number, canonical[number]))], "head")

    def publish(self) -> None:
        self.clock += self.rng.randrange(0, 400)
        self.step()
        for lost in self.canon.take_missing(self.clock):
            if lost.last_hash is not None and self.rng.random() < 0.8:
                last = BlockRef(lost.to_block, lost.last_hash)
                lane: Lane = "head" if lost.from_block == lost.to_block else "history"
                self.write(cast(Stream, lost.stream), [(lost.from_block, last)], lane)

    def step(self) -> None:
        """The publisher's turn: look up what is in doubt, then show what counts."""
        self.look()
        change = self.canon.step(self.clock)
        if change is not None:
            self.check(change)

    def fold(self) -> None:
        """Copy the tiles of a segment into a new load, as the compaction does."""
        stream = self.rng.choice(STREAMS)
        tiling = self.canon.tilings[stream]
        top = min(self.canon.final_number, tiling.top)
        for partition in tiling.open_partitions():
            tiles = [tile for tile in tiling.tiles(partition) if tile.to_block <= top]
            if len(tiles) < 2:
                continue
            ids = {tile.load_id for tile in tiles}
            if any(tile.load_id in ids for tile in tiling.tiles(partition) if tile not in tiles):
                continue
            self.copy(stream, tiles, [(t.from_block, t.to_block, t.last_hash) for t in tiles])
            return

    def copy(
        self, stream: Stream, tiles: Sequence[Piece], segments: Iterable[tuple[int, int, bytes]]
    ) -> None:
        """Write tiles again as one load, which mostly takes their place."""
        self.load_id += 1
        self.open[stream][self.load_id] = [
            block
            for tile in tiles
            for block in self.open[stream][tile.load_id]
            if tile.from_block <= block[0] <= tile.to_block
        ]
        rows = [
            ledger(stream, self.load_id, first, BlockRef(last, last_hash), "history")
            for first, last, last_hash in segments
        ]
        self.ledger += rows
        if self.rng.random() < 0.8:
            assert self.canon.fold(rows)
            self.folds += 1

    def seal(self) -> None:
        for partition in self.canon.seal_candidates():
            first = partition * 20
            row = self.canon.shown
            assert row is not None
            self.sealed[partition] = {
                stream: [
                    found
                    for load, rows in self.open[stream].items()
                    if load in row.loads
                    for found in rows
                    if first <= found[0] < first + 20
                ]
                for stream in STREAMS
            }
            self.canon.freeze(partition)
            if self.rng.random() < 0.7:
                self.canon.seal(partition)
                self.seals += 1
            else:
                self.canon.freeze(partition, frozen=False)

    def go_away(self) -> None:
        """The reorg agent's updates stay unheard for a while; then it tells a whole snapshot."""
        for _ in range(self.rng.randrange(1, 6)):
            self.grow()
            if self.rng.random() < 0.5:
                self.finalize()
        self.pending = [snapshot(self.fork, 0)]
        self.absences += 1

    def look(self) -> None:
        """What the publisher looks up before it publishes."""
        gap = self.canon.fork_gap()
        if gap is not None:
            self.canon.close_fork_gap(self.read_ancestors(*gap))
        doubt = self.canon.doubt()
        if doubt is not None:
            self.canon.settle(doubt[0], self.read_ancestors(*doubt))
            self.doubts += 1

    def restart(self) -> None:
        """Publisher and reorg agent end, and start again."""
        self.restart_publisher()
        # The reorg agent starts again from what is shown, and hears the rest from the node.
        shown, node = self.canon.shown, self.fork
        base = shown.finalized if shown is not None and shown.finalized else self.anchor
        stored = self.path(shown.head, base.number + 1) if shown is not None else []
        self.fork = from_blocks(1, base, [BlockRef(*found) for found in stored])
        self.pending = [snapshot(self.fork, 0)]
        for number, block_hash in self.path(node.head, base.number + 1):
            self.observe(BlockRef(number, block_hash), is_head=False)
        self.observe(node.head, is_head=True)
        final = node.finalized
        self.follow(FinalityAdvanced(1, "finalized", final.number, final.hash, 0))

    def restart_publisher(self) -> None:
        """The publisher takes up what is shown, under a claim of its own."""
        shown = self.rows[-1] if self.rows else None
        self.canon = Canon(
            self.facts, VERSIONS, self.floor, self.canon.generation + 1,
            shown=shown, settings=CanonSettings(1_000, 5_000),
        )  # fmt: skip
        if shown is None:
            self.canon.add(self.ledger)
            return
        self.canon.restore(self.ledger)
        claimed = self.canon.claim()
        assert claimed is not None
        self.rows.append(claimed)

    def check(self, change: Change) -> None:
        """A row that the publisher would write now: what must hold of it, does."""
        row, old = change.row, self.rows[-1] if self.rows else None
        self.rows.append(row)
        assert row.head.hash in self.legal, "the head was canonical at some time"
        chain = self.path(row.head, 0)
        assert_whole(row, chain, {stream: self.stored(stream, row) for stream in STREAMS})
        assert row.straddling or not self.outside(row)
        if old is not None:
            assert_follows(old, row)
            before = self.path(old.head, 0)
            assert_removed(before, chain, change.reorg)
            if change.reorg is not None:
                self.reorgs += 1
                told = tell_joined(change.reorg, self.read_ancestors)
                assert_added(before, chain, told)
                self.untold += told != change.reorg

    def settle(self) -> None:
        """Deliver everything; then all of the chain must be visible."""
        self.canon.lower_floor(self.floor)
        while self.pending:
            assert self.canon.apply_fork(self.pending.pop(0), self.clock)
        self.load_everything()
        for _ in range(self.PATIENCE):
            self.clock += 10_000
            self.step()
            for lost in self.canon.take_missing(self.clock):
                self.serve(lost)
        assert self.rows[-1].head == self.fork.head
        assert self.rows[-1].floor == self.floor
        assert self.rows[-1].finalized == self.fork.finalized

    def load_everything(self) -> None:
        """History up to the anchor, as far as it is final, and every block as a head block."""
        size, final = self.facts.segment_blocks, self.fork.finalized
        for stream in STREAMS:
            for first in range(self.floor // size * size, self.anchor.number + 1, size):
                if first + size - 1 <= final.number:
                    self.load_history(stream, first)
            self.load_heads(stream, self.floor)

    def load_history(self, stream: Stream, first: int) -> None:
        """A grid segment of the node's chain."""
        last = first + self.facts.segment_blocks - 1
        canonical = dict(self.path(self.fork.head, first))
        self.add_surely(stream, first, BlockRef(last, canonical[last]), "history")

    def load_heads(self, stream: Stream, first: int) -> None:
        """The node's blocks from a height on, a load each."""
        for number, block_hash in self.path(self.fork.head, first):
            self.add_surely(stream, number, BlockRef(number, block_hash), "head")

    def serve(self, lost: Missing) -> None:
        """Load a lost block, or lost segment, again."""
        if lost.last_hash is not None:
            last = BlockRef(lost.to_block, lost.last_hash)
            self.add_surely(cast(Stream, lost.stream), lost.from_block, last, "head")

    def add_surely(self, stream: Stream, first: int, last: BlockRef, lane: Lane) -> None:
        self.load_id += 1
        self.open[stream][self.load_id] = self.path(last, first)
        row = ledger(stream, self.load_id, first, last, lane)
        self.ledger.append(row)
        self.canon.add([row])

    def run(self, turns: int) -> None:
        for _ in range(turns):
            self.turn()

    def turn(self) -> None:
        """One thing happens, by the dice."""
        choice = self.rng.random()
        if choice < 0.05:
            self.grow()
        elif choice < 0.07:
            self.finalize()
        elif choice < 0.20 and self.pending:
            assert self.canon.apply_fork(self.pending.pop(0), self.clock)
        elif choice < 0.50:
            self.feed()
        elif choice < 0.56:
            self.write_history()
        elif choice < 0.68:
            self.write_head()
        elif choice < 0.73:
            self.fold()
        elif choice < 0.76:
            self.seal()
        elif choice < 0.77:
            self.restart()
        elif choice < 0.78:
            self.go_away()
        else:
            self.publish()
