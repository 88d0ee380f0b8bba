"""Random header trees in random orders in, the same canonical chain out."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.fork import Applied, NeedBlock
from processors.reorg import advance, from_blocks
from schemas.segments import BlockRef, FinalityAdvanced, HeadObserved
from tests.processors.header_tree import ANCHOR, Tree, final, follow, run


@st.composite
def trees(draw: st.DrawFn) -> tuple[Tree, list[BlockRef]]:
    tree, refs = Tree(), [ANCHOR]
    for index in range(draw(st.integers(1, 14))):
        parent = draw(st.sampled_from(refs[-5:] if draw(st.booleans()) else refs))
        refs += tree.grow(parent, draw(st.integers(1, 3)), f"n{index}")
    return tree, refs[1:]


@settings(max_examples=300, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_any_order_ends_as_a_straight_replay(
    grown: tuple[Tree, list[BlockRef]], rng: random.Random
) -> None:
    tree, refs = grown
    last = rng.choice(refs)
    straight, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref) for ref in tree.path(last)[1:]))
    assert straight.head == last
    messages = [tree.seen(ref, is_head=False) for ref in refs]
    messages += [tree.seen(rng.choice(refs), is_head=rng.random() < 0.7) for _ in refs]
    rng.shuffle(messages)
    cut = rng.randrange(len(messages) + 1)
    messages[cut:cut] = [tree.seen(last)]
    messages[cut + 1 :] = [
        message
        if not message.is_head
        else tree.seen(BlockRef(message.number, message.hash), is_head=False)
        for message in messages[cut + 1 :]
    ]
    state, chain = from_blocks(1, ANCHOR), [ANCHOR]
    for message in messages:
        state, events = advance(state, message)
        for event in events:
            assert isinstance(event, Applied | NeedBlock)
            if isinstance(event, Applied):
                chain = follow(chain, event.update)
    assert state.chain == straight.chain == tuple(chain)
    assert {*state.side} == {ref.hash for ref in refs} - {ref.hash for ref in state.chain}


@settings(max_examples=200, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_apply_then_revert_is_identity(
    grown: tuple[Tree, list[BlockRef]], rng: random.Random
) -> None:
    tree, refs = grown
    first, second = rng.choice(refs), rng.choice(refs)
    state, _ = run(from_blocks(1, ANCHOR), *(tree.seen(ref, is_head=False) for ref in refs))
    state, _ = run(state, tree.seen(first))
    there, events = run(state, tree.seen(second))
    back, more = run(there, tree.seen(first))
    assert (back.chain, back.side) == (state.chain, state.side)
    if events:
        assert isinstance(events[0], Applied)
        assert isinstance(more[0], Applied)
        assert events[0].update.removed == more[0].update.added[::-1]
        assert events[0].update.added == more[0].update.removed[::-1]


@settings(max_examples=200, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_finality_in_any_order_follows_the_chain(
    grown: tuple[Tree, list[BlockRef]], rng: random.Random
) -> None:
    tree, refs = grown
    last = rng.choice(refs)
    path = tree.path(last)
    marks = [rng.choice(path[1:]) for _ in range(3)]
    wrong = [ref for ref in refs if ref not in path]
    messages: list[HeadObserved | FinalityAdvanced] = [
        tree.seen(ref, is_head=False) for ref in path[1:-1]
    ]
    messages += [final(mark) for mark in marks]
    messages += [final(rng.choice(wrong)) for _ in range(2) if wrong]
    messages.append(tree.seen(last))
    rng.shuffle(messages)
    chain = [ANCHOR]
    state = from_blocks(1, ANCHOR)
    for message in messages:
        state, events = advance(state, message)
        for event in events:
            if isinstance(event, Applied):
                chain = follow(chain, event.update)
    assert state.chain == tuple(path)
    assert state.finalized == max(marks, key=lambda mark: mark.number)


def test_providers_in_any_order_agree_when_all_name_the_same_head() -> None:
    tree = Tree()
    a, rng = tree.grow(ANCHOR, 6, "a"), random.Random(4)
    b = tree.grow(a[1], 6, "b")
    for order in itertools.permutations("xyz"):
        state = from_blocks(1, ANCHOR)
        for ref in a + b:
            state, _ = run(state, tree.seen(ref, is_head=False))
        for _ in range(20):
            seen = tree.seen(rng.choice(a + b), provider=rng.choice("xyz"))
            state, _ = run(state, seen)
        for provider in order:
            state, _ = run(state, tree.seen(a[5], provider=provider))
        for provider in order:
            state, _ = run(state, tree.seen(b[5], provider=provider))
        assert state.head == b[5]
