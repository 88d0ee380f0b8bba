"""A seed in, random loads, reorgs, folds, seals and restarts around a Canon out, all checked."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

from processors.fork import Applied, ForkState
from processors.reorg import advance, from_blocks, snapshot
from schemas.chains import ChainFacts, load_chains
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved, Lane, Stream
from sinks.canon import Canon
from sinks.canon_row import CanonRow, CanonSettings, Change
from sinks.ledger import LedgerRow

FACTS = load_chains()["local"].resized(segment_blocks=5, partition_blocks=20)
STREAMS: tuple[Stream, ...] = ("blocks", "logs", "events")
VERSIONS: dict[str, str | None] = dict.fromkeys(STREAMS, "v")


def ref(number: int, branch: str = "") -> BlockRef:
    return BlockRef(number, f"{number}/{branch}".encode().ljust(32, b"\0"))


def ledger(
    stream: Stream,
    load_id: int,
    first: int,
    last: BlockRef,
    lane: Lane = "head",
    content_version: str = "v",
    generation: int = 1,
) -> LedgerRow:
    return LedgerRow(
        stream=stream,
        lane=lane,
        from_block=first,
        to_block=last.number,
        last_hash=last.hash,
        content_version=content_version,
        generation=generation,
        load_id=load_id,
        tables=(),
        rows=(),
        checksums=(),
    )


class World:
    """A model of ClickHouse's tables beside the state machine, checked after every row."""

    def __init__(self, seed: int, facts: ChainFacts = FACTS, floor: int = 3) -> None:
        self.rng, self.facts, self.floor = random.Random(seed), facts, floor
        self.blocks: dict[bytes, tuple[int, bytes]] = {}
        self.open: dict[Stream, dict[int, list[tuple[int, bytes]]]] = {s: {} for s in STREAMS}
        self.sealed: dict[int, dict[Stream, list[tuple[int, bytes]]]] = {}
        self.ledger: list[LedgerRow] = []
        self.legal: set[bytes] = set()
        self.clock, self.load_id = 0, 0
        size = facts.segment_blocks
        self.anchor = self.make((floor // size + self.rng.randrange(1, 6)) * size - 1)
        self.fork: ForkState = from_blocks(1, self.anchor)
        self.legal_up_to(self.anchor)
        self.pending: list[ForkUpdate] = [snapshot(self.fork, 0)]
        self.canon = Canon(facts, VERSIONS, floor, 1, settings=CanonSettings(1_000, 5_000))
        self.rows: list[CanonRow] = []
        self.reorgs = 0
        self.folds, self.seals, self.absences, self.doubts = 0, 0, 0, 0

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

    def path(self, head: BlockRef, first: int) -> list[tuple[int, bytes]]:
        found, block_hash = [], head.hash
        while block_hash in self.blocks and self.blocks[block_hash][0] >= first:
            found.append((self.blocks[block_hash][0], block_hash))
            block_hash = self.blocks[block_hash][1]
        return found[::-1]

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
        self.look()
        change = self.canon.step(self.clock)
        if change is not None:
            self.check(change)
        missing = self.canon.take_missing(self.clock)
        for lost in missing:
            if lost.last_hash is not None and self.rng.random() < 0.8:
                last = BlockRef(lost.to_block, lost.last_hash)
                lane: Lane = "head" if lost.from_block == lost.to_block else "history"
                self.write(lost.stream, [(lost.from_block, last)], lane)  # type: ignore[arg-type]

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
            self.load_id += 1
            self.open[stream][self.load_id] = [
                row
                for tile in tiles
                for row in self.open[stream][tile.load_id]
                if tile.from_block <= row[0] <= tile.to_block
            ]
            rows = [
                ledger(
                    stream, self.load_id, t.from_block, BlockRef(t.to_block, t.last_hash), "history"
                )
                for t in tiles
            ]
            self.ledger += rows
            if self.rng.random() < 0.8:
                assert self.canon.fold(rows)
                self.folds += 1
            return

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

    def read_ancestors(self, block: BlockRef, lowest: int) -> list[BlockRef]:
        """What `sinks.fork_gap` reads of the rows that are stored."""
        stored = {block_hash for rows in self.open["blocks"].values() for _, block_hash in rows}
        at, below = block.hash, []
        while at in stored and self.blocks[at][0] > lowest:
            at = self.blocks[at][1]
            below.append(BlockRef(self.blocks[at][0], at))
        return below[::-1]

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
        shown = self.rows[-1] if self.rows else None
        self.canon = Canon(
            self.facts, VERSIONS, self.floor, self.canon.generation + 1,
            shown=shown, settings=CanonSettings(1_000, 5_000),
        )  # fmt: skip
        if shown is None:
            self.canon.add(self.ledger)
        else:
            self.canon.restore(self.ledger)
            claimed = self.canon.claim()
            assert claimed is not None
            self.rows.append(claimed)
        # The reorg agent starts again from what is shown, and hears the rest from the node.
        node = self.fork
        base = shown.finalized if shown is not None and shown.finalized else self.anchor
        stored = self.path(shown.head, base.number + 1) if shown is not None else []
        self.fork = from_blocks(1, base, [BlockRef(*found) for found in stored])
        self.pending = [snapshot(self.fork, 0)]
        for number, block_hash in self.path(node.head, base.number + 1):
            self.observe(BlockRef(number, block_hash), is_head=False)
        self.observe(node.head, is_head=True)
        final = node.finalized
        self.follow(FinalityAdvanced(1, "finalized", final.number, final.hash, 0))

    # What must hold

    def check(self, change: Change) -> None:
        row = change.row
        old = self.rows[-1] if self.rows else None
        self.rows.append(row)
        assert row.head.hash in self.legal, "the head was canonical at some time"
        expected = self.path(row.head, row.floor)
        assert len(expected) == row.head.number - row.floor + 1
        for stream in STREAMS:
            visible = [
                found
                for load in row.loads
                for found in self.open[stream].get(load, ())
                if row.floor <= found[0] <= row.head.number and found[0] // 20 not in row.sealed
            ]
            for partition in row.sealed:
                visible += self.sealed[partition][stream]
            assert Counter(visible) == Counter(expected), f"{stream} up to {row.head.number}"
        outside = any(
            number < row.floor or number > row.head.number
            for stream in STREAMS
            for load in row.loads
            for number, _ in self.open[stream].get(load, ())
        )
        assert row.straddling or not outside
        for mark in (row.safe, row.finalized):
            assert mark is None or (mark.number, mark.hash) in self.path(row.head, 0)
        assert len(set(row.loads)) == len(row.loads)
        if old is not None:
            assert (row.generation, row.seq) > (old.generation, old.seq)
            assert row.floor <= old.floor
            assert set(row.sealed) >= set(old.sealed)
            on_chain = old.head.hash in {found[1] for found in expected}
            assert on_chain == (change.reorg is None)
            if change.reorg is not None:
                self.reorgs += 1
                before, after = self.path(old.head, 0), self.path(row.head, 0)
                assert [(r.number, r.hash) for r in change.reorg.removed] == [
                    found for found in before[::-1] if found not in after
                ]
                added = [found for found in after if found not in before]
                told = [(r.number, r.hash) for r in change.reorg.added]
                assert told == added[: len(told)]
                assert len(told) >= min(1, len(added))
                assert told == added or self.absences

    def settle(self) -> None:
        """Deliver everything; then all of the chain must be visible."""
        self.canon.lower_floor(self.floor)
        while self.pending:
            assert self.canon.apply_fork(self.pending.pop(0), self.clock)
        size, final = self.facts.segment_blocks, self.fork.finalized
        by_number = dict(self.path(self.fork.head, 0))
        for stream in STREAMS:
            for first in range(self.floor // size * size, self.anchor.number + 1, size):
                if first + size - 1 <= final.number:
                    last = BlockRef(first + size - 1, by_number[first + size - 1])
                    self.add_surely(stream, first, last, "history")
            for number in range(self.floor, self.fork.head.number + 1):
                self.add_surely(stream, number, BlockRef(number, by_number[number]), "head")
        for _ in range(20):
            self.clock += 10_000
            self.look()
            change = self.canon.step(self.clock)
            if change is not None:
                self.check(change)
            for lost in self.canon.take_missing(self.clock):
                if lost.last_hash is not None:
                    last = BlockRef(lost.to_block, lost.last_hash)
                    self.add_surely(lost.stream, lost.from_block, last, "head")  # type: ignore[arg-type]
        assert self.rows[-1].head == self.fork.head
        assert self.rows[-1].floor == self.floor
        assert self.rows[-1].finalized == self.fork.finalized

    def add_surely(self, stream: Stream, first: int, last: BlockRef, lane: Lane) -> None:
        self.load_id += 1
        self.open[stream][self.load_id] = self.path(last, first)
        row = ledger(stream, self.load_id, first, last, lane)
        self.ledger.append(row)
        self.canon.add([row])

    def run(self, steps: int) -> None:
        for _ in range(steps):
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
