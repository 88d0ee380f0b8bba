"""Which offsets may be committed: never past a message that is not durable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sinks.offsets import Offsets, Place

PART = ("t", 0)


def test_what_is_committed_is_the_lowest_that_is_not_durable() -> None:
    offsets = Offsets()
    offsets.assign(*PART, 10)
    places = [offsets.take(*PART, offset) for offset in (10, 11, 12)]
    assert offsets.to_commit() == {}

    offsets.done(_sure(places[1]))
    assert offsets.to_commit() == {}
    offsets.done(_sure(places[0]))
    assert offsets.to_commit() == {PART: 12}
    offsets.committed({PART: 12})
    assert offsets.to_commit() == {}
    offsets.done(_sure(places[2]))
    assert offsets.to_commit() == {PART: 13}
    assert offsets.positions() == {PART: 13}
    assert offsets.waiting == 0


def test_what_was_handed_over_may_be_committed_again() -> None:
    offsets = Offsets()
    offsets.assign(*PART, 10)
    offsets.done(_sure(offsets.take(*PART, 10)))
    offsets.committed(offsets.to_commit())
    offsets.take(*PART, 11)

    assert offsets.to_commit() == {}
    assert offsets.to_commit(again=True) == {PART: 11}


def test_what_was_taken_before_a_partition_was_lost_counts_no_more() -> None:
    offsets = Offsets()
    offsets.assign(*PART, 0)
    before = _sure(offsets.take(*PART, 0))
    offsets.revoke(*PART)
    assert offsets.take(*PART, 1) is None
    offsets.done(before)
    offsets.assign(*PART, 0)
    offsets.take(*PART, 0)

    offsets.done(before)

    assert offsets.to_commit() == {}
    assert offsets.assigned == [PART]


@given(st.permutations(range(12)), st.integers(0, 12))
def test_whatever_the_order_nothing_undone_is_passed(order: list[int], count: int) -> None:
    offsets = Offsets()
    offsets.assign(*PART, 0)
    places = [_sure(offsets.take(*PART, offset)) for offset in range(12)]
    for at in order[:count]:
        offsets.done(places[at])
    undone = set(range(12)) - set(order[:count])
    expected = min(undone, default=12)

    assert offsets.to_commit() == ({PART: expected} if expected else {})


def _sure(place: Place | None) -> Place:
    assert place is not None
    return place
