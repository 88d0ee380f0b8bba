"""Which letters may be driven again, and as what."""

from __future__ import annotations

import pytest

from schemas.errors_roles import ForeignMessage, RedriveUnfit
from schemas.segments import Envelope
from sinks.dead_letters import Letter, Letters, dead_letter, read_letter

REASON = ForeignMessage(topic="t", reason="it is strange")


def letter_of(refused: Envelope) -> Letter:
    sent = dead_letter(refused, 2, 5, REASON, "sink", 0)
    letter = read_letter(2, 0, sent.value, sent.headers)
    assert letter is not None
    return letter


def test_a_segment_comes_back_as_it_was_sent() -> None:
    refused = Envelope("raw.logs.history", b"1:7", b"value", {"schema": "LogSegment", "again": "a"})
    assert letter_of(refused).envelope() == refused


@pytest.mark.parametrize("topic", ["raw.heads", "forks", "claims", "requests"])
def test_what_was_so_once_is_not_said_again(topic: str) -> None:
    """A head of before, driven again, would be a reorg to it."""
    refused = Envelope(topic, b"1", b"value", {"schema": "HeadObserved"})
    with pytest.raises(RedriveUnfit, match="was so before") as raised:
        letter_of(refused).envelope()
    assert "a head" in raised.value.why_text
    assert "ingester" in raised.value.fix_text


def told(letters: Letters, *at_ms: int) -> list[str]:
    """What a list holds of letters of these times; each is of a message of 100 KB."""
    for offset, at in enumerate(at_ms):
        refused = Envelope("raw.logs.head", b"1", bytes(100_000), {"schema": "LogSegment"})
        sent = dead_letter(refused, 0, offset, REASON, "sink", at)
        letters.add(0, offset, sent.value, sent.headers)
    return [one.id for one in letters.all()]


def test_a_list_is_as_long_as_asked_and_in_the_order_that_is_asked() -> None:
    newest, oldest = Letters(count_max=2, newest=True), Letters(count_max=2)
    assert told(newest, 5, 9, 7, 9) == ["0:3", "0:1"]
    assert told(oldest, 5, 9, 7, 5) == ["0:0", "0:3"]
    assert newest.found == oldest.found == 4
    assert told(Letters(lambda one: one.offset > 0), 3, 2, 1) == ["0:2", "0:1"]


def test_a_list_holds_no_bytes_of_what_was_refused() -> None:
    letters = Letters()
    told(letters, 1, 2)
    assert {(one.letter.value, one.size_bytes) for one in letters.all()} == {(b"", 100_000)}


def test_a_list_says_what_was_driven_again() -> None:
    letters = Letters(count_max=1)
    told(letters, 1, 2)
    mark = letters.all()[0].mark()
    letters.add(0, 2, mark.value, mark.headers)
    letters.add(0, 3, b"foreign", {})
    assert [(one.id, one.redriven) for one in letters.all()] == [("0:0", 1)]
