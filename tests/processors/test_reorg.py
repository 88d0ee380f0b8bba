"""What each kind of new header comes to: growth, reorg, finality, limits, a halt."""

from __future__ import annotations

from random import Random

import pytest

from processors.fork import Applied, Finalized, ForkLimits, Halt, NeedBlock
from processors.reorg import from_blocks, snapshot
from schemas.segments import ForkUpdate, HeadObserved
from tests.processors.header_tree import ANCHOR, Tree, block, final, run


def test_grows_block_by_block_and_at_once() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 5, "a")
    state, events = run(from_blocks(1, ANCHOR), tree.seen(a[0]))
    assert events == [Applied(ForkUpdate(1, a[0], None, ANCHOR, (), (a[0],), 0))]
    fills = [tree.seen(ref, is_head=False) for ref in a[1:4]]
    state, events = run(state, *fills)
    assert events == [], "ancestors alone never move the head"
    state, events = run(state, tree.seen(a[4]))
    assert isinstance(events[0], Applied)
    assert events[0].update.added == tuple(a[1:5])
    assert state.chain == (ANCHOR, *a)


def test_asks_for_each_missing_ancestor_once_it_is_the_first_missing() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 4, "a")
    state, events = run(from_blocks(1, ANCHOR), tree.seen(a[3]))
    assert events == [NeedBlock(a[2].hash, 103)]
    state, events = run(state, tree.seen(a[0], is_head=False))
    assert events == [], "not what was missing"
    state, events = run(state, tree.seen(a[2], is_head=False))
    assert events == [NeedBlock(a[1].hash, 102)]
    state, events = run(state, tree.seen(a[1], is_head=False))
    assert [type(event) for event in events] == [Applied]
    assert state.head == a[3]
    assert not state.side


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_other_branch_of_any_length_replaces_ours(length: int) -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 3, "a")
    b = tree.grow(a[0], length, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    fills = [tree.seen(ref, is_head=False) for ref in b[:-1]]
    state, events = run(state, *fills, tree.seen(b[-1]))
    assert events == [Applied(ForkUpdate(1, b[-1], None, ANCHOR, (a[2], a[1]), tuple(b), 0))]
    back, events = run(state, tree.seen(a[2]))
    assert events == [Applied(ForkUpdate(1, a[2], None, ANCHOR, tuple(b[::-1]), (a[1], a[2]), 0))]
    assert back.chain == (ANCHOR, *a)


def test_reorg_to_the_parent_moves_the_head_back() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 3, "a")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    state, events = run(state, tree.seen(a[1], is_head=False))
    assert events == []
    state, events = run(state, tree.seen(a[1]))
    assert events == [Applied(ForkUpdate(1, a[1], None, ANCHOR, (a[2],), (), 0))]
    state, events = run(state, tree.seen(a[2]))
    assert state.head == a[2]


def test_lagging_provider_does_not_move_the_head_back() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 4, "a")
    b = tree.grow(a[1], 2, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    lagging = [tree.seen(a[1], provider="slow"), tree.seen(b[0], provider="slow")]
    state, events = run(state, *lagging)
    assert events == []
    state, events = run(state, tree.seen(b[1], provider="slow"))
    assert events == [], "a branch as high as ours does not count from who never named our head"
    _, events = run(state, tree.seen(b[1]))
    assert [type(event) for event in events] == [Applied], "the provider that named it may"


@pytest.mark.parametrize("seed", range(20))
def test_words_that_come_again_in_any_order_change_nothing(seed: int) -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 8, "a")
    b = tree.grow(a[1], 9, "b")
    said = [tree.seen(ref, at=1_000 * at) for at, ref in enumerate((*a, *b[5:]))]
    fills = [tree.seen(ref, is_head=False) for ref in b[:5]]
    state, _ = run(from_blocks(1, ANCHOR), *said[:8], *fills, *said[8:], final(b[2]))
    again = said * 2
    Random(seed).shuffle(again)
    after, events = run(state, *again)
    assert events == []
    assert (after.chain, after.words) == (state.chain, state.words)


def test_words_count_again_once_a_clock_was_set_back() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 3, "a")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref, at=3_600_000) for ref in a[:2]))
    assert run(state, tree.seen(a[2], at=3_500_000))[1] == [], "late"
    assert run(state, tree.seen(a[2], at=0))[0].head == a[2]


def test_branch_counts_once_those_who_named_our_head_fell_silent() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 4, "a")
    b = tree.grow(a[1], 1, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref, at=1_000) for ref in a))
    _, events = run(state, tree.seen(a[1], provider="b", at=120_000))
    assert events == [], "an ancestor alone is a node that lags"
    after, _ = run(state, tree.seen(b[0], provider="b", at=120_000))
    assert after.head == b[0]


def test_higher_branch_counts_from_anyone() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 2, "a")
    b = tree.grow(ANCHOR, 3, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    state, _ = run(state, *(tree.seen(ref, provider="b") for ref in b))
    assert state.head == b[2]


def test_finality_counts_only_where_its_block_is_canonical() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 4, "a")
    b = tree.grow(ANCHOR, 5, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    state, events = run(state, final(b[1]), final(b[1]))
    assert (events, state.finalized) == ([], ANCHOR)
    assert len(state.parked) == 1
    state, events = run(state, *(tree.seen(ref, is_head=False) for ref in b[:-1]))
    state, events = run(state, tree.seen(b[4]))
    assert events[0] == Applied(ForkUpdate(1, b[4], None, ANCHOR, tuple(a[::-1]), tuple(b), 0))
    assert events[1:] == [Applied(ForkUpdate(1, b[4], b[1], b[1], (), (), 0)), Finalized(b[1])]
    assert state.parked == ()


def test_finality_ahead_of_the_head_waits_and_jumps() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 40, "a")
    state, events = run(from_blocks(1, ANCHOR), final(a[30]), final(a[10]))
    assert events == []
    state, events = run(state, *(tree.seen(ref) for ref in a))
    finals = [event.block for event in events if isinstance(event, Finalized)]
    assert finals == [a[10], a[30]]
    state, events = run(state, final(a[5]))
    assert events == [], "finality never goes back"


def test_safe_goes_back_with_a_reorg_but_not_below_finalized() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 6, "a")
    b = tree.grow(a[2], 5, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    state, _ = run(state, final(a[4], "safe"), final(a[1]))
    assert (state.safe, state.finalized) == (a[4], a[1])
    state, _ = run(state, *(tree.seen(ref) for ref in b))
    assert (state.safe, state.finalized) == (a[2], a[1])
    assert state.head == b[-1]


def test_reorg_below_finalized_halts_with_the_command() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 6, "a")
    b = tree.grow(a[2], 6, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a), final(a[4]))
    halted, events = run(state, *(tree.seen(ref, is_head=False) for ref in b[:-1]), tree.seen(b[5]))
    assert len(events) == 1
    assert isinstance(events[0], Halt)
    assert events[0].error.code == "HR-3001"
    assert "headrace rewind --to 103" in events[0].error.fix_text
    assert halted.chain == state.chain
    assert run(halted, tree.seen(a[0]))[1] == events, "a halted state stays halted"


def test_reorg_below_all_that_is_remembered_halts() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 3, "a")
    stranger = tree.grow(block(100, "x"), 6, "x")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a))
    _, events = run(state, *(tree.seen(ref) for ref in stranger))
    assert isinstance(events[-1], Halt)
    assert events[-1].error.data["to_block"] == 99


def test_node_that_lags_below_finalized_is_ignored() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 6, "a")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a), final(a[4]))
    after, events = run(state, tree.seen(a[1]), tree.seen(block(50, "old")), tree.seen(ANCHOR))
    assert events == []
    assert after.chain == state.chain


def test_late_word_of_a_branch_left_below_finalized_is_ignored() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 6, "a")
    b = tree.grow(a[1], 5, "b")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a), final(a[4]))
    after, events = run(state, *(tree.seen(ref) for ref in b[:4]))
    assert (b[2].number, b[3].number) == (state.finalized.number, state.head.number)
    assert events == []
    assert after.chain == state.chain
    _, events = run(after, tree.seen(b[4]))
    assert isinstance(events[-1], Halt)
    next_block = tree.grow(a[-1], 1, "a")[0]
    after, _ = run(after, tree.seen(next_block))
    assert after.head == next_block
    assert run(after, tree.seen(b[4]))[1] == []


def test_limits_halt_or_drop() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 30, "a")
    limits = ForkLimits(window_blocks_max=10, gap_blocks_max=15, side_headers_max=5)
    state = from_blocks(1, ANCHOR, limits=limits)
    _, events = run(state, *(tree.seen(ref) for ref in a[:11]))
    assert isinstance(events[-1], Halt)
    assert events[-1].error.code == "HR-3002"
    _, events = run(state, tree.seen(a[20]))
    assert isinstance(events[-1], Halt)
    assert events[-1].error.code == "HR-3003"
    kept, _ = run(state, *(tree.seen(ref, is_head=False) for ref in a[1:12]))
    assert sorted(header.number for header in kept.side.values()) == [108, 109, 110, 111, 112]


def test_state_stays_bounded_as_finality_advances() -> None:
    tree = Tree()
    limits = ForkLimits(tail_blocks=16)
    state, parent = from_blocks(1, ANCHOR, limits=limits), ANCHOR
    for step in range(600):
        ours, other = tree.grow(parent, 1, "a"), tree.grow(parent, 1, "b")
        state, _ = run(state, tree.seen(other[0]), tree.seen(ours[0]))
        parent = ours[0]
        if step > 8:
            state, _ = run(state, final(tree.path(parent)[-8]))
    assert len(state.chain) <= 2 * 16 + 8 + 2
    assert len(state.side) <= len(state.chain)
    assert state.head == parent


def test_contradicting_heights_never_connect() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 2, "a")
    state, _ = run(from_blocks(1, ANCHOR), tree.seen(a[0]), tree.seen(a[1]))
    orphan = block(104, "liar")
    lie = HeadObserved(1, 106, b"l" * 32, orphan.hash, 0, 0, "a")
    fill = HeadObserved(1, 104, orphan.hash, a[1].hash, 0, 0, "a", is_head=False)
    after, events = run(state, lie, fill)
    assert after.head == a[1]
    assert [type(event) for event in events] == [NeedBlock]


def test_snapshot_rebuilds_a_follower_and_a_state() -> None:
    tree = Tree()
    a = tree.grow(ANCHOR, 5, "a")
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in a), final(a[1]))
    whole = snapshot(state, 7)
    assert whole.added == tuple(a[1:])
    assert whole.added[0] == whole.finalized
    rebuilt = from_blocks(1, whole.added[0], whole.added[1:])
    assert rebuilt.head == a[4]
    with pytest.raises(ValueError, match="block 103 follows 101"):
        from_blocks(1, a[0], [a[2]])
