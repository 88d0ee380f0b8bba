"""Segments in, the envelopes and queues that stages take out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from infra.queues import ByteQueue
from schemas.codec import (
    encode_block_segment,
    encode_log_segment,
)
from schemas.segments import (
    BlockSegment,
    Envelope,
    LogSegment,
    segment_envelope,
)
from schemas.tables import WITHDRAWALS, empty_block
from tests.patience import PATIENCE_SECONDS

SOON = PATIENCE_SECONDS

SEGMENT_BLOCKS, PARTITION_BLOCKS = 10, 100


def queue(name: str = "q") -> ByteQueue:
    return ByteQueue(name, 1 << 20)


def envelope_of(segment: LogSegment | BlockSegment) -> Envelope:
    if isinstance(segment, LogSegment):
        value = encode_log_segment(segment)
    else:
        value = encode_block_segment(replace(segment, withdrawals=empty_block(WITHDRAWALS)))
    return segment_envelope(segment.name, SEGMENT_BLOCKS, value)


def until(ask: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.005)
