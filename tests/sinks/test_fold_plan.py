"""Head blocks by the thousand and a finality that lags in, a list of loads that stays short out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from schemas.chains import load_chains
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon import Canon
from sinks.fold_plan import Fold, FoldSettings, plan_folds, runs
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


def test_a_segment_that_one_load_holds_in_parts_is_folded() -> None:
    """As where two ingesters proved its blocks differently: there is nothing more to gain."""
    follower = Follower()
    follower.grow(4 * SIZE, lag=0)
    halves = [(at, at + 4, ref(at + 4).hash) for at in range(0, 4 * SIZE, 5)]
    follower.fold(Fold(stream, 0, tuple(halves), frozenset()) for stream in STREAMS)
    assert follower.upkeep(FoldSettings(head_segments_min=1)) == []
    follower.grow(SIZE, lag=0)
    folds = follower.upkeep(FoldSettings(head_segments_min=1, loads_max=1))
    assert {fold.segments for fold in folds} == {((40, 49, ref(49).hash),)}


def runs_of(*versions: str) -> list[tuple[int, int, str]]:
    """Runs of a fold of segments of ten blocks, a ledger row and a load for each five of them."""
    firsts = range(0, 5 * len(versions), 5)
    segments = tuple((first, first + 9, ref(first + 9).hash) for first in firsts[::2])
    rows = [
        ledger("logs", first, first, ref(first + 4), content_version=version)
        for first, version in zip(firsts, versions, strict=True)
    ]
    found = runs(Fold("logs", 0, segments, frozenset(firsts)), rows)
    assert [row for run in found for row in run] == rows
    return [(run[0].from_block, run[-1].to_block, run[0].content_version) for run in found]


def test_blocks_of_one_content_are_one_run_a_segment() -> None:
    assert runs_of("a", "a", "a", "a") == [(0, 9, "a"), (10, 19, "a")]


def test_a_change_of_content_ends_a_run_wherever_it_is() -> None:
    assert runs_of("a", "a", "b", "b") == [(0, 9, "a"), (10, 19, "b")]
    assert runs_of("a", "b", "b", "a") == [(0, 4, "a"), (5, 9, "b"), (10, 14, "b"), (15, 19, "a")]


def test_segments_that_are_no_neighbours_share_no_run() -> None:
    rows = [ledger("logs", at, at, ref(at + 9)) for at in (0, 30)]
    segments = tuple((at, at + 9, ref(at + 9).hash) for at in (0, 30))
    assert runs(Fold("logs", 0, segments, frozenset({0, 30})), rows) == [[rows[0]], [rows[1]]]
