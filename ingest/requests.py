"""A request for a range in, the segments to fetch once more out; and its message."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.backfill import SegmentRange
from schemas.chains import ChainFacts
from schemas.codec import encode_segment_wanted
from schemas.segments import REQUESTS, Envelope, SegmentWanted


@dataclass(frozen=True, slots=True)
class Fetches:
    """What a request comes to."""

    segments: tuple[SegmentRange, ...]
    """Whole grid segments of final blocks, for the history lane."""
    blocks: tuple[int | bytes, ...]
    """Single blocks by height, or by hash where the request names one, for the head lane."""


def plan_fetches(wanted: SegmentWanted, facts: ChainFacts, finalized: int, head: int) -> Fetches:
    """What to fetch for a request.

    Parameters
    ----------
    wanted
        The request. One block with its hash is that very block; any other range is rounded
        outwards to grid segments where they are final, and taken block by block above.
    facts
        The chain's grid.
    finalized, head
        The newest final block and the newest block, as the endpoints have them; -1 for none.
    """
    if wanted.last_hash is not None and wanted.from_block == wanted.to_block:
        return Fetches((), (wanted.last_hash,))
    size = facts.segment_blocks
    segments: list[SegmentRange] = []
    blocks: list[int | bytes] = []
    for start in range(facts.segment_start(wanted.from_block), wanted.to_block + 1, size):
        last = start + size - 1
        if last <= finalized:
            segments.append(SegmentRange(start, last))
        else:
            low, high = max(start, wanted.from_block), min(last, wanted.to_block, head)
            blocks.extend(range(low, high + 1))
    return Fetches(tuple(segments), tuple(blocks))


def request_envelope(wanted: SegmentWanted) -> Envelope:
    """The message of a request."""
    headers = {
        "chain_id": str(wanted.chain_id),
        "from": str(wanted.from_block),
        "to": str(wanted.to_block),
        "schema": "SegmentWanted",
    }
    return Envelope(REQUESTS, str(wanted.chain_id).encode(), encode_segment_wanted(wanted), headers)
