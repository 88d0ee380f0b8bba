"""Random loads, reorgs, folds, seals and restarts in, canon rows that show legal chains out."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.fork import Applied, ForkState
from processors.reorg import advance, from_blocks, snapshot
from schemas.chains import ChainFacts, load_chains
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved, Lane, Stream
from sinks.canon import Canon
from sinks.canon_row import CanonRow, CanonSettings, Change, Rewound
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
        self.folds, self.seals = 0, 0

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
                assert [(r.number, r.hash) for r in change.reorg.added] == added

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
            else:
                self.publish()


@pytest.mark.parametrize("seed", range(60))
def test_every_row_shows_one_legal_chain(seed: int) -> None:
    print("seed", seed)
    world = World(seed)
    world.run(600)
    world.settle()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_every_row_shows_one_legal_chain_from_any_floor(seed: int, floor: int) -> None:
    world = World(seed, floor=floor)
    world.run(250)
    world.settle()


def test_the_simulation_reaches_what_it_is_for() -> None:
    reorgs = folds = seals = 0
    for seed in range(12):
        world = World(seed)
        world.run(900)
        reorgs, folds, seals = reorgs + world.reorgs, folds + world.folds, seals + world.seals
    assert min(reorgs, folds, 2 * seals) > 20, (reorgs, folds, seals)


def canon_at(anchor: BlockRef, *added: BlockRef, floor: int = 0, now_ms: int = 0) -> Canon:
    canon = Canon(FACTS, VERSIONS, floor, 1)
    chain = (anchor, *added)
    update = ForkUpdate(1, chain[-1], None, anchor, (), chain, 0)
    assert canon.apply_fork(update, now_ms)
    return canon


def everywhere(canon: Canon, load_id: int, first: int, last: BlockRef, lane: Lane = "head") -> None:
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, load_id + offset, first, last, lane)])


def shown(change: Change | None) -> CanonRow:
    assert change is not None
    return change.row


def test_block_is_visible_when_every_core_stream_has_it() -> None:
    canon = canon_at(ref(4), ref(5))
    for offset, stream in enumerate(STREAMS):
        assert canon.step(0) is None
        canon.add([ledger(stream, 10 + offset, 0, ref(4), "history")])
    row = shown(canon.step(0))
    assert (row.floor, row.head, row.finalized, row.loads) == (0, ref(4), ref(4), (10, 11, 12))
    everywhere(canon, 20, 5, ref(5))
    row = shown(canon.step(0))
    assert (row.head, row.finalized) == (ref(5), ref(4))
    assert row.loads == (10, 11, 12, 20, 21, 22)
    assert canon.step(0) is None


def test_history_must_end_in_the_parent_of_the_first_head_block() -> None:
    canon = canon_at(ref(4, "true"), ref(5))
    everywhere(canon, 10, 0, ref(4, "other"), "history")
    everywhere(canon, 20, 5, ref(5))
    assert canon.step(0) is None
    everywhere(canon, 30, 0, ref(4, "true"), "history")
    assert shown(canon.step(0)).loads == (20, 21, 22, 30, 31, 32)


def test_second_load_of_a_segment_is_refused_and_leaves_its_other_segments_missing() -> None:
    canon = canon_at(ref(19))
    everywhere(canon, 10, 0, ref(4), "history")
    assert shown(canon.step(0)).loads == (10, 11, 12)
    both = [
        ledger("logs", 90, 0, ref(4), "history"),
        ledger("logs", 90, 5, ref(9), "history"),
    ]
    canon.add(both)
    assert canon.step(0) is None
    (lost,) = canon.take_missing(0)
    assert (lost.stream, lost.from_block, lost.to_block) == ("logs", 5, 9)


def test_old_chain_stays_until_a_state_of_the_new_fork_is_durable() -> None:
    canon = canon_at(ref(4), ref(5), ref(6))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    everywhere(canon, 30, 6, ref(6))
    assert shown(canon.step(0)).head == ref(6)
    branch = (ref(5, "b"), ref(6, "b"), ref(7, "b"))
    update = ForkUpdate(1, branch[-1], None, ref(4), (ref(6), ref(5)), branch, 0)
    assert canon.apply_fork(update, 100)
    assert canon.step(100) is None
    everywhere(canon, 40, 5, ref(5, "b"))
    everywhere(canon, 50, 6, ref(6, "b"))
    assert canon.step(200) is None, "the new fork's state is not durable as a whole"
    everywhere(canon, 60, 7, ref(7, "b"))
    change = canon.step(300)
    row = shown(change)
    assert (row.head, row.loads) == (ref(7, "b"), (10, 11, 12, 40, 41, 42, 50, 51, 52, 60, 61, 62))
    assert change is not None
    assert change.reorg is not None
    assert change.reorg.removed == (ref(6), ref(5))
    assert change.reorg.added == branch
    assert (change.reorg.ancestor, change.reorg.old_head) == (ref(4), ref(6))


def test_longest_durable_prefix_is_shown_when_the_new_fork_stays_away() -> None:
    canon = canon_at(ref(4), ref(5), ref(6))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    everywhere(canon, 30, 6, ref(6))
    assert shown(canon.step(0)).head == ref(6)
    update = ForkUpdate(1, ref(7, "b"), None, ref(4), (ref(6),), (ref(6, "b"), ref(7, "b")), 0)
    assert canon.apply_fork(update, 100)
    assert canon.step(2_099) is None
    assert shown(canon.step(2_100)).head == ref(5)


def test_there_and_back_before_it_is_durable_changes_nothing() -> None:
    canon = canon_at(ref(4), ref(5), ref(6))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    everywhere(canon, 30, 6, ref(6))
    assert shown(canon.step(0)).head == ref(6)
    there = ForkUpdate(1, ref(6, "b"), None, ref(4), (ref(6),), (ref(6, "b"),), 0)
    back = ForkUpdate(1, ref(6), None, ref(4), (ref(6, "b"),), (ref(6),), 0)
    assert canon.apply_fork(there, 0)
    assert canon.apply_fork(back, 0)
    assert canon.step(60_000) is None


def test_reorg_to_the_parent_shows_at_once_and_duplicates_do_not_apply() -> None:
    canon = canon_at(ref(4), ref(5))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    assert shown(canon.step(0)).head == ref(5)
    back = ForkUpdate(1, ref(4), None, ref(4), (ref(5),), (), 0)
    assert canon.apply_fork(back, 0)
    assert not canon.apply_fork(back, 0)
    row = shown(canon.step(0))
    assert (row.head, row.loads) == (ref(4), (10, 11, 12))


def test_history_replaces_the_head_blocks_of_its_segment() -> None:
    blocks = tuple(ref(number) for number in range(5, 10))
    canon = canon_at(ref(4), *blocks)
    everywhere(canon, 10, 0, ref(4), "history")
    for block in blocks[:3]:
        everywhere(canon, block.number * 10, block.number, block)
    assert shown(canon.step(0)).head == ref(7)
    everywhere(canon, 200, 5, ref(9), "history")
    row = shown(canon.step(0))
    assert (row.head, row.loads) == (ref(9), (10, 11, 12, 200, 201, 202))


def test_rewound_and_foreign_ledger_rows_do_not_count() -> None:
    canon = Canon(FACTS, VERSIONS, 0, 3, rewinds=[Rewound(2, 6)])
    assert canon.apply_fork(ForkUpdate(1, ref(9), None, ref(9), (), (ref(9),), 0), 0)
    everywhere(canon, 10, 0, ref(4), "history")
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, 20 + offset, 5, ref(9), "history")])
        canon.add(
            [ledger(stream, 30 + offset, 5, ref(9), "history", content_version="w", generation=3)]
        )
    assert shown(canon.step(0)).head == ref(4)
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, 40 + offset, 5, ref(9), "history", generation=3)])
    row = shown(canon.step(0))
    assert (row.head, row.loads) == (ref(9), (10, 11, 12, 40, 41, 42))


def test_floor_is_lowered_once_history_reaches_it() -> None:
    canon = canon_at(ref(44), floor=40)
    everywhere(canon, 10, 40, ref(44), "history")
    assert shown(canon.step(0)).floor == 40
    canon.lower_floor(17)
    everywhere(canon, 20, 20, ref(24), "history")
    for first in (15, 25, 30):
        everywhere(canon, 100 + first, first, ref(first + 4), "history")
    assert canon.step(0) is None
    everywhere(canon, 50, 35, ref(39), "history")
    row = shown(canon.step(0))
    assert (row.floor, row.head) == (17, ref(44))
    assert len(row.loads) == 3 * 6
    assert canon.seal_candidates() == [1]


def test_lost_load_is_asked_for_by_name_after_a_while() -> None:
    canon = canon_at(ref(4), ref(5))
    everywhere(canon, 10, 0, ref(4), "history")
    canon.add([ledger("blocks", 20, 5, ref(5)), ledger("logs", 21, 5, ref(5))])
    assert shown(canon.step(0)).head == ref(4)
    assert canon.take_missing(0) == []
    assert canon.take_missing(59_999) == []
    (lost,) = canon.take_missing(60_000)
    assert (lost.stream, lost.from_block, lost.last_hash) == ("events", 5, ref(5).hash)
    assert canon.take_missing(60_001) == []


def test_snapshot_above_a_tip_that_is_not_final_does_not_build_on_it() -> None:
    canon = canon_at(ref(4), ref(5, "gone"), ref(6, "gone"))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5, "gone"))
    everywhere(canon, 30, 6, ref(6, "gone"))
    assert shown(canon.step(0)).head == ref(6, "gone")
    ahead = ForkUpdate(1, ref(14), None, ref(14), (), (ref(14),), 0)
    assert canon.apply_fork(ahead, 0)
    assert canon.step(10_000) is None
    everywhere(canon, 40, 10, ref(14), "history")
    assert canon.step(20_000) is None
    everywhere(canon, 50, 5, ref(9), "history")
    row = shown(canon.step(20_000))
    assert (row.head, row.loads) == (ref(14), (10, 11, 12, 40, 41, 42, 50, 51, 52))


def test_load_that_is_half_on_the_fork_goes_whole_and_comes_again() -> None:
    canon = canon_at(ref(4), ref(5), ref(6))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 30, 6, ref(6, "b"))
    for offset, stream in enumerate(STREAMS):
        both = [ledger(stream, 20 + offset, 5, ref(5)), ledger(stream, 20 + offset, 6, ref(6))]
        canon.add(both)
    assert shown(canon.step(0)).head == ref(6)
    update = ForkUpdate(1, ref(6, "b"), None, ref(4), (ref(6),), (ref(6, "b"),), 0)
    assert canon.apply_fork(update, 0)
    assert canon.step(0) is None
    assert canon.step(60_000) is None, "block 5 is canonical: the height does not go back below it"
    asked = canon.take_missing(0)
    assert {(lost.stream, lost.from_block, lost.to_block) for lost in asked} == {
        (stream, 5, 5) for stream in STREAMS
    }
    everywhere(canon, 40, 5, ref(5))
    row = shown(canon.step(0))
    assert (row.head, row.loads) == (ref(6, "b"), (10, 11, 12, 30, 31, 32, 40, 41, 42))


def test_history_of_another_branch_does_not_replace_head_blocks() -> None:
    blocks = tuple(ref(number) for number in range(5, 10))
    canon = canon_at(ref(4), *blocks)
    everywhere(canon, 10, 0, ref(4), "history")
    for block in blocks:
        everywhere(canon, block.number * 10, block.number, block)
    before = shown(canon.step(0))
    everywhere(canon, 200, 5, ref(9, "other"), "history")
    assert canon.step(60_000) is None
    everywhere(canon, 300, 5, ref(9), "history")
    row = shown(canon.step(0))
    assert (row.head, row.loads) == (before.head, (10, 11, 12, 300, 301, 302))


def test_history_counts_only_where_all_streams_end_in_the_same_block() -> None:
    canon = Canon(FACTS, VERSIONS, 0, 1)
    canon.add([ledger("blocks", 1, 0, ref(4, "liar"), "history")])
    canon.add([ledger("logs", 2, 0, ref(4), "history")])
    canon.add([ledger("events", 3, 0, ref(4), "history")])
    assert canon.step(0) is None
    canon.add([ledger("blocks", 4, 0, ref(4), "history")])
    row = shown(canon.step(0))
    assert (row.head, row.finalized, row.loads) == (ref(4), ref(4), (2, 3, 4))
