"""Silences of every kind against what is expected of them."""

from __future__ import annotations

import pytest

from sinks.pace import GAPS, Pace


def fed(gap: float, messages: int) -> tuple[Pace, float]:
    """A pace that has seen messages come at one speed; when the last of them came."""
    pace = Pace(0.25, 1.0)
    for number in range(messages):
        pace.took(number * gap)
    return pace, (messages - 1) * gap


@pytest.mark.parametrize(
    ("gap", "silence"),
    [(0.001, 0.25), (0.0125, 0.4), (0.02, 0.64), (0.5, 1.0)],
    ids=["flood", "stream", "brook", "trickle"],
)
def test_the_faster_messages_came_the_sooner_their_end_is_known(gap: float, silence: float) -> None:
    pace, last = fed(gap, 10_000)
    assert not pace.ended(last + 0.99 * silence)
    assert pace.ended(last + 1.01 * silence)


def test_a_few_messages_do_not_make_a_stream() -> None:
    pace, last = fed(0.001, GAPS - 1)
    assert not pace.ended(last + 0.9)
    assert pace.ended(last + 1.0)


def test_after_an_end_a_stream_begins_anew() -> None:
    pace, last = fed(0.001, 1000)
    assert pace.ended(last + 0.3)
    for number in range(GAPS):
        pace.took(last + 60 + 0.001 * number)
    assert not pace.ended(last + 60.2)
    assert pace.ended(last + 60.3)


def test_a_stream_by_fits_and_starts_is_taken_for_ended_once() -> None:
    pace, last = fed(0.001, 1000)
    assert pace.ended(last + 0.3)
    for _ in range(5):
        for _ in range(100):
            last += 0.001
            pace.took(last)
        last += 0.7
        assert not pace.ended(last)
    assert pace.ended(last + 0.4)


def test_while_nobody_looks_it_is_not_silent() -> None:
    pace, last = fed(0.001, 1000)
    pace.was_busy(last + 3)
    assert not pace.ended(last + 3.2)
    assert pace.ended(last + 3.3)
