"""Which letters may be driven again, and as what."""

from __future__ import annotations

import pytest

from schemas.codec import decode_dead_letter
from schemas.errors_roles import ForeignMessage, RedriveUnfit
from schemas.segments import Envelope
from sinks.dead_letters import Letter, dead_letter

REASON = ForeignMessage(topic="t", reason="it is strange")


def letter_of(refused: Envelope) -> Letter:
    sent = dead_letter(refused, 2, 5, REASON, "sink", 0)
    return Letter(2, 0, decode_dead_letter(sent.value), sent.headers)


def test_a_segment_comes_back_as_it_was_sent() -> None:
    refused = Envelope("raw.logs.history", b"1:7", b"value", {"schema": "LogSegment", "again": "a"})
    assert letter_of(refused).envelope() == refused


@pytest.mark.parametrize("topic", ["raw.heads", "forks", "claims", "requests"])
def test_what_was_so_once_is_not_said_again(topic: str) -> None:
    """A head of before, driven again, would be a reorg to it."""
    refused = Envelope(topic, b"1", b"value", {"schema": "HeadObserved"})
    with pytest.raises(RedriveUnfit, match="was so before"):
        letter_of(refused).envelope()
