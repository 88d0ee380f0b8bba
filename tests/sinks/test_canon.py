"""Random loads, reorgs, folds, seals and restarts in, canon rows that show legal chains out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.segments import BlockRef, ForkUpdate, Lane
from sinks.canon import Canon
from sinks.canon_row import CanonRow, Change, Rewound
from tests.sinks.canon_ledger import FACTS, STREAMS, VERSIONS, ledger, ref
from tests.sinks.canon_world import World


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
    reached: Counter[str] = Counter()
    for seed in range(12):
        world = World(seed)
        world.run(900)
        for name in ("reorgs", "folds", "seals", "absences", "doubts"):
            reached[name] += getattr(world, name)
    assert min(reached["reorgs"], reached["folds"], 2 * reached["seals"]) > 20, reached
    assert min(reached["absences"], 5 * reached["doubts"]) > 20, reached


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


def test_reorg_to_the_parent_shows_after_a_moment_and_duplicates_do_not_apply() -> None:
    canon = canon_at(ref(4), ref(5))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    assert shown(canon.step(0)).head == ref(5)
    back = ForkUpdate(1, ref(4), None, ref(4), (ref(5),), (), 0)
    assert canon.apply_fork(back, 0)
    assert not canon.apply_fork(back, 0)
    assert canon.step(1_999) is None
    change = canon.step(2_000)
    row = shown(change)
    assert (row.head, row.loads) == (ref(4), (10, 11, 12))
    assert change is not None
    assert change.reorg is not None
    assert (change.reorg.new_head, change.reorg.added) == (ref(4), ())


def test_a_new_branch_that_is_told_block_by_block_is_one_reorg_that_names_it() -> None:
    canon = canon_at(ref(4), ref(5), ref(6))
    everywhere(canon, 10, 0, ref(4), "history")
    everywhere(canon, 20, 5, ref(5))
    everywhere(canon, 30, 6, ref(6))
    assert shown(canon.step(0)).head == ref(6)
    assert canon.apply_fork(ForkUpdate(1, ref(4), None, ref(4), (ref(6), ref(5)), (), 0), 100)
    assert canon.step(100) is None, "the ancestor alone would be a reorg without a new branch"
    reorgs, heads = [], []
    for number, now_ms in ((5, 600), (6, 1_600), (7, 2_600)):
        block = ref(number, "b")
        assert canon.apply_fork(ForkUpdate(1, block, None, ref(4), (), (block,), 0), now_ms)
        everywhere(canon, number * 10, number, block)
        change = canon.step(now_ms)
        assert change is not None
        heads.append(change.row.head)
        reorgs += [change.reorg] if change.reorg is not None else []
    assert heads == [ref(5, "b"), ref(6, "b"), ref(7, "b")]
    (reorg,) = reorgs
    assert (reorg.ancestor, reorg.old_head, reorg.new_head) == (ref(4), ref(6), ref(5, "b"))
    assert (reorg.removed, reorg.added) == ((ref(6), ref(5)), (ref(5, "b"),))


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
    assert canon.step(20_000) is None, "it is not known yet which of the shown blocks left"
    assert canon.doubt() == (ref(9), 4)
    canon.settle(ref(9), [ref(number) for number in range(4, 9)])
    assert canon.doubt() is None
    change = canon.step(20_000)
    row = shown(change)
    assert (row.head, row.loads) == (ref(14), (10, 11, 12, 40, 41, 42, 50, 51, 52))
    assert change is not None
    assert change.reorg is not None
    assert change.reorg.ancestor == ref(4)
    assert change.reorg.removed == (ref(6, "gone"), ref(5, "gone"))
    assert change.reorg.added == tuple(ref(number) for number in range(5, 10))


def test_snapshot_amid_head_blocks_of_another_branch_does_not_build_on_them() -> None:
    canon = canon_at(ref(4), *(ref(number, "gone") for number in range(5, 9)))
    everywhere(canon, 10, 0, ref(4), "history")
    for number in range(5, 9):
        everywhere(canon, number * 10, number, ref(number, "gone"))
    assert shown(canon.step(0)).head == ref(8, "gone")
    ahead = ForkUpdate(1, ref(9), None, ref(7), (), (ref(7), ref(8), ref(9)), 0)
    assert canon.apply_fork(ahead, 0)
    everywhere(canon, 100, 5, ref(5, "gone"))
    for number in range(6, 10):
        everywhere(canon, 100 + number * 10, number, ref(number))
    assert canon.step(60_000) is None
    assert canon.fork_gap() == (ref(7), 5)
    canon.close_fork_gap([ref(5, "gone"), ref(6)])
    change = canon.step(0)
    assert shown(change).head == ref(9)
    assert change is not None
    assert change.reorg is not None
    assert change.reorg.ancestor == ref(5, "gone")
    assert [one.number for one in change.reorg.removed] == [8, 7, 6]
    assert change.reorg.added == tuple(ref(number) for number in range(6, 10))


def test_snapshot_amid_head_blocks_of_its_own_branch_changes_nothing() -> None:
    canon = canon_at(ref(4), *(ref(number) for number in range(5, 9)))
    everywhere(canon, 10, 0, ref(4), "history")
    for number in range(5, 9):
        everywhere(canon, number * 10, number, ref(number))
    before = shown(canon.step(0))
    ahead = ForkUpdate(1, ref(8), None, ref(7), (), (ref(7), ref(8)), 0)
    assert canon.apply_fork(ahead, 0)
    change = canon.step(0)
    row = shown(change)
    assert (row.head, row.loads, row.finalized) == (before.head, before.loads, ref(7))
    assert change is not None
    assert change.reorg is None


def test_late_word_about_final_blocks_does_not_make_them_leave() -> None:
    canon = canon_at(ref(4), *(ref(number) for number in range(5, 10)))
    everywhere(canon, 10, 0, ref(9), "history")
    assert shown(canon.step(0)).head == ref(9)
    removed = tuple(map(ref, range(9, 5, -1)))
    late = ForkUpdate(1, ref(6, "b"), None, ref(4), removed, (ref(6, "b"),), 0)
    assert canon.apply_fork(late, 0)
    assert canon.step(60_000) is None


def test_view_follows_an_update_that_goes_back_to_what_the_fork_calls_final() -> None:
    canon = canon_at(ref(4), *(ref(number) for number in range(5, 10)))
    everywhere(canon, 10, 0, ref(9), "history")
    assert shown(canon.step(0)).finalized == ref(9)
    removed = tuple(map(ref, range(9, 4, -1)))
    assert canon.apply_fork(ForkUpdate(1, ref(4), None, ref(4), removed, (), 0), 0)
    assert canon.step(60_000) is None


def test_history_waits_where_another_stream_has_head_blocks_that_nobody_compared() -> None:
    canon = canon_at(ref(4), *(ref(number, "gone") for number in range(5, 8)))
    everywhere(canon, 10, 0, ref(4), "history")
    for number in range(5, 8):
        for offset, stream in enumerate(("logs", "events")):
            last = ref(number, "gone")
            canon.add([ledger(stream, number * 10 + offset, number, last)])  # type: ignore[arg-type]
    assert shown(canon.step(0)).head == ref(4)
    everywhere(canon, 100, 5, ref(9), "history")
    assert canon.step(60_000) is None, "blocks of one branch beside logs of another"
    assert canon.apply_fork(ForkUpdate(1, ref(9), None, ref(9), (), (ref(9),), 0), 0)
    row = shown(canon.step(60_000))
    assert (row.head, row.loads) == (ref(9), (10, 11, 12, 100, 101, 102))


def test_a_head_block_of_one_stream_holds_back_history_of_a_later_chain_in_the_others() -> None:
    canon = canon_at(ref(4), *(ref(number, "gone") for number in range(5, 8)))
    everywhere(canon, 10, 0, ref(4), "history")
    assert shown(canon.step(0)).head == ref(4)
    canon.add([ledger("events", 20, 5, ref(5, "gone"))])
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, 100 + offset, 5, ref(9), "history")])
    assert canon.step(60_000) is None
    assert canon.apply_fork(ForkUpdate(1, ref(9), None, ref(9), (), (ref(9),), 0), 0)
    assert shown(canon.step(60_000)).head == ref(9)


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
