"""Head blocks by the thousand and a finality that lags in, a list of loads that stays short out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from schemas.chains import load_chains
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon import Canon
from sinks.fold_plan import Fold, FoldSettings, alike, plan_folds
from tests.sinks.canon_ledger import STREAMS, VERSIONS, ledger, ref

SIZE = 10
FACTS = load_chains()["base"].resized(segment_blocks=SIZE, partition_blocks=100_000)
SETTINGS = FoldSettings()


class Follower:
    """A canon that follows a head, one load a block and stream, and folds what is planned."""

    def __init__(self, *, start: int = 0, size: int = SIZE) -> None:
        facts = replace(FACTS, segment_blocks=size)
        self.canon = Canon(facts, VERSIONS, start, 1)
        self.head = self.final = start - 1
        self.load_id, self.copied, self.clock = 0, 0, 0

    def grow(self, blocks: int, lag: int) -> None:
        first, self.head = self.head + 1, self.head + blocks
        self.final = max(self.final, self.head - lag)
        added = tuple(ref(number) for number in range(first, self.head + 1))
        if self.canon.fork.head is None:
            self.fork(added[0], added)
        else:
            self.fork(self.canon.fork.finalized, added)
        self.fork(ref(self.final), ())
        for number in range(first, self.head + 1):
            for stream in STREAMS:
                self.load_id += 1
                self.canon.add([ledger(stream, self.load_id, number, ref(number))])
        self.show()

    def fork(self, final: BlockRef | None, added: tuple[BlockRef, ...]) -> None:
        update = ForkUpdate(1, ref(self.head), None, final, (), added, 0)
        assert self.canon.apply_fork(update, self.clock)

    def show(self) -> None:
        self.clock += 1_000
        assert self.canon.step(self.clock) is not None

    def fold(self, folds: Iterable[Fold]) -> None:
        for fold in folds:
            self.load_id += 1
            assert self.canon.fold(
                [
                    ledger(fold.stream, self.load_id, first, BlockRef(last, last_hash), "history")  # type: ignore[arg-type]
                    for first, last, last_hash in fold.segments
                ]
            )
            self.copied += sum(last - first + 1 for first, last, _ in fold.segments)
            self.show()

    def upkeep(self, settings: FoldSettings = SETTINGS) -> list[Fold]:
        folds = plan_folds(self.canon, settings)
        self.fold(folds)
        return folds

    def final_loads(self) -> int:
        """Visible loads of final blocks."""
        held = 0
        for tiling in self.canon.tilings.values():
            tiles = [tile for part in tiling.open_partitions() for tile in tiling.tiles(part)]
            held += len({tile.load_id for tile in tiles if tile.to_block <= self.final})
        return held


def test_loads_of_final_blocks_stay_in_the_hundreds_at_two_blocks_a_second_for_hours() -> None:
    follower, blocks = Follower(), 3 * 3_600 * 2
    most = 0
    for turn in range(blocks // 24):
        follower.grow(24, lag=1_003)
        follower.upkeep()
        if turn % 10 == 0:
            most = max(most, follower.final_loads())
    assert most <= SETTINGS.loads_max + len(STREAMS) * (SETTINGS.head_loads_min + 2 * SIZE)
    final = follower.final * len(STREAMS)
    assert follower.copied <= 3 * final, "rows are copied a few times, not again and again"


def test_a_crowd_of_loads_does_not_fold_a_part_of_a_segment() -> None:
    follower = Follower()
    follower.grow(25, lag=2)
    settings = FoldSettings(head_segments_min=9, head_loads_min=99, loads_max=0, fold_loads_max=64)
    assert follower.upkeep(settings) == []
    follower.grow(10, lag=2)
    folds = follower.upkeep(FoldSettings(head_segments_min=3))
    assert {tuple(segment[:2] for segment in fold.segments) for fold in folds} == {
        ((0, 9), (10, 19), (20, 29))
    }


def test_a_load_that_is_not_whole_in_whole_segments_holds_up_its_own_segment_only() -> None:
    follower = Follower(start=5)
    # One load of blocks around a boundary: the segment below begins below the floor.
    follower.canon = canon = Canon(FACTS, VERSIONS, 5, 1)
    chain = tuple(ref(number) for number in range(4, 60))
    update = ForkUpdate(1, chain[-1], None, chain[0], (), chain, 0)
    assert canon.apply_fork(update, 0)
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, 900 + offset, number, ref(number)) for number in (9, 10)])
    follower.load_id = 1_000
    for number in range(5, 60):
        for stream in STREAMS:
            follower.load_id += 1
            if number not in (9, 10):
                canon.add([ledger(stream, follower.load_id, number, ref(number))])
    assert canon.apply_fork(ForkUpdate(1, chain[-1], None, chain[-1], (), (), 0), 0)
    follower.show()
    folds = follower.upkeep()
    assert len(folds) == len(STREAMS)
    assert [segment[:2] for segment in folds[0].segments] == [
        (20, 29), (30, 39), (40, 49), (50, 59),
    ]  # fmt: skip


def test_segments_that_share_a_load_are_folded_together() -> None:
    """What an earlier version left: blocks of an unfinished segment in a load with others."""
    follower = Follower()
    follower.grow(65, lag=0)
    canon = follower.canon
    follower.fold(
        Fold(
            stream,
            0,
            tuple((number, number, ref(number).hash) for number in (3, 62, 63)),
            frozenset(),
        )
        for stream in STREAMS
    )
    folds = follower.upkeep()
    assert all((0, 9) not in [s[:2] for s in fold.segments] for fold in folds)
    assert len(folds) == len(STREAMS)
    follower.grow(10, lag=0)
    folds = follower.upkeep(FoldSettings(head_segments_min=1, fold_segments_max=1))
    assert {tuple(segment[:2] for segment in fold.segments) for fold in folds} == {
        ((0, 9), (60, 69))
    }
    assert all(tile.to_block - tile.from_block == 9 for tile in canon.tilings["logs"].tiles(0)[:7])


def test_few_but_large_segments_are_folded_as_soon_as_they_hold_many_loads() -> None:
    follower = Follower(size=100)
    follower.grow(120, lag=3)
    assert [fold.segments[-1][1] for fold in follower.upkeep()] == [99] * len(STREAMS)


def test_small_loads_are_folded_only_if_none_is_larger_than_the_others_together() -> None:
    follower = Follower()
    for blocks in (80, 10, 20):
        follower.grow(blocks, lag=0)
        follower.upkeep(FoldSettings(head_segments_min=1))
    crowded = FoldSettings(loads_max=1)
    assert follower.upkeep(crowded) == []
    follower.grow(10, lag=0)
    follower.upkeep(FoldSettings(head_segments_min=1))
    folds = follower.upkeep(crowded)
    assert [(fold.segments[0][0], fold.segments[-1][1]) for fold in folds] == [(80, 119)] * 3


def planned(*segments: int, loads: Iterable[int]) -> Fold:
    """A fold of segments of ten blocks."""
    named = tuple((first, first + 9, bytes([first])) for first in segments)
    return Fold("logs", 0, named, frozenset(loads))


def test_loads_of_one_content_are_folded_as_planned() -> None:
    fold = planned(0, 10, loads={1, 2, 3})
    split = alike(fold, [(1, 0, "a"), (2, 5, "a"), (3, 10, "a")])
    assert (split.folds, split.mixed) == ({"a": fold}, frozenset())


def test_a_change_of_content_splits_a_fold() -> None:
    """As when blocks are proven further from some block on; what lies on the edge stays."""
    fold = planned(0, 10, 20, 30, 40, loads=range(1, 8))
    contents = [(1, 0, "a"), (2, 10, "a"), (3, 20, "a"), (4, 25, "b")]
    contents += [(5, 30, "b"), (6, 35, "b"), (7, 40, "b")]
    split = alike(fold, contents)
    assert split.folds == {
        "a": planned(0, 10, loads={1, 2}),
        "b": planned(30, 40, loads={5, 6, 7}),
    }
    assert split.mixed == {3, 4}


def test_what_shares_a_load_with_other_content_is_left() -> None:
    fold = planned(0, 10, 20, 30, loads=range(1, 6))
    contents = [(1, 0, "a"), (2, 5, "a"), (2, 10, "a"), (3, 15, "b"), (4, 20, "b"), (5, 30, "b")]
    split = alike(fold, contents)
    assert split.folds == {"b": planned(20, 30, loads={4, 5})}
    assert split.mixed == {1, 2, 3}


def test_one_load_is_folded_only_if_it_holds_parts() -> None:
    fold = planned(0, 10, loads={1, 2})
    split = alike(fold, [(1, 0, "a"), (2, 10, "b"), (2, 15, "b")])
    assert split.folds == {"b": planned(10, loads={2})}


def test_what_cannot_be_folded_keeps_nothing_else_from_it() -> None:
    follower = Follower()
    follower.grow(120 * SIZE, lag=0)
    lowest = set(range(1, 3 * 60 * SIZE + 1))
    folds = plan_folds(follower.canon, SETTINGS, without=lowest)
    assert {fold.stream for fold in folds} == set(STREAMS)
    for fold in folds:
        assert fold.segments[0][0] == 60 * SIZE
        assert fold.sources.isdisjoint(lowest)
