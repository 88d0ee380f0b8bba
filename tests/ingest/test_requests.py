"""What a request comes to: grid segments where they are final, single blocks above."""

from __future__ import annotations

import pytest

from ingest.backfill import SegmentRange
from ingest.requests import Fetches, plan_fetches, request_envelope
from schemas.chains import load_chains
from schemas.codec import decode_segment_wanted
from schemas.segments import SegmentWanted

FACTS = load_chains()["local"].resized(10, 100)
HASH = b"\5" * 32


def wanted(first: int, last: int, last_hash: bytes | None = None) -> SegmentWanted:
    return SegmentWanted(1, first, last, last_hash, ("logs",), "r", "test", 0)


@pytest.mark.parametrize(
    ("request_", "segments", "blocks"),
    [
        (wanted(10, 19), [10], []),
        (wanted(13, 14), [10], []),
        (wanted(13, 24), [10, 20], []),
        (wanted(25, 43), [20], [30, 31, 32, 33, 34, 35, 36]),
        (wanted(32, 33), [], [32, 33]),
        (wanted(50, 60), [], []),
        (wanted(13, 13, HASH), [], [HASH]),
        (wanted(10, 19, HASH), [10], []),
    ],
)
def test_plan(request_: SegmentWanted, segments: list[int], blocks: list[int | bytes]) -> None:
    plan = plan_fetches(request_, FACTS, finalized=30, head=36)
    assert plan == Fetches(tuple(SegmentRange(at, at + 9) for at in segments), tuple(blocks))


def test_a_request_is_a_message() -> None:
    envelope = request_envelope(wanted(1, 2))
    assert (envelope.topic, envelope.key) == ("requests", b"1")
    assert decode_segment_wanted(envelope.value) == wanted(1, 2)
