"""Heads at offsets in, at least once and from any point on: the kept fork is that of once each."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from processors.fork import ForkLimits
from processors.fork_codec import decode_fork, encode_fork
from processors.heads import NOTHING, hear
from processors.reorg import snapshot
from sinks.fork_view import ForkView
from tests.processors.head_words import Message, block, final, head, random_heads

LIMITS = ForkLimits()


def test_a_chain_begins_with_its_first_finalized_block() -> None:
    first = block(10)
    before = hear(NOTHING, 0, head(first, block(9)), LIMITS)
    safe = hear(before.kept, 1, final(first, "safe"), LIMITS)
    begun = hear(safe.kept, 2, final(first), LIMITS)

    assert (before.kept.state, before.events, before.kept.offset) == (None, (), 0)
    assert (safe.kept.state, safe.begun) == (None, False)
    assert begun.begun
    assert begun.kept.state is not None
    assert begun.kept.state.head == first


def test_what_is_known_is_skipped() -> None:
    """A node that seems to go back is a reorg; a message read twice is not."""
    a, b, c = block(10), block(11), block(12)
    told: list[Message] = [final(a), head(b, a), head(c, b)]
    kept = NOTHING
    for offset, one in enumerate(told):
        kept = hear(kept, offset, one, LIMITS).kept
    again = hear(kept, 1, told[1], LIMITS)

    assert again.kept is kept
    assert not again.events

    assert hear(kept, 3, told[1], LIMITS).updates[0].removed == (c,), "told again by the node"


@pytest.mark.parametrize("seed", range(25))
def test_crashes_between_writing_and_acknowledging_change_nothing(seed: int) -> None:
    """The state is written before its updates are told, and acknowledged after.

    A crash can come between any two of the three; a worker that begins tells a snapshot first.
    """
    rng = random.Random(seed)
    told = random_heads(rng, 60)
    straight = NOTHING
    for offset, one in enumerate(told):
        straight = hear(straight, offset, one, LIMITS).kept

    written, committed, view = encode_fork(NOTHING), 0, ForkView()
    heights: list[int] = []
    while committed < len(told):
        kept = decode_fork(written, LIMITS)
        if kept.state is not None:
            view.apply(snapshot(kept.state, 0))
            heights.append(kept.offset)
        for offset in range(committed, len(told)):
            heard = hear(kept, offset, told[offset], LIMITS)
            kept = heard.kept
            written = encode_fork(kept)
            if rng.random() < 0.1:
                break
            if heard.begun and kept.state is not None:
                view.apply(snapshot(kept.state, 0))
            for update in heard.updates:
                assert view.apply(update), "a follower misses nothing between two snapshots"
            if rng.random() < 0.1:
                break
            committed = offset + 1

    assert decode_fork(written, LIMITS) == straight
    assert straight.state is not None
    assert view.head == straight.state.head
    assert view.finalized == straight.state.finalized
    assert all(low <= high for low, high in pairwise(heights)), "no snapshot is of the past"
