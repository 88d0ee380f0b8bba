"""Messages that read well and do not belong here are refused, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from infra.settings import Settings
from schemas.codec import encode_log_segment
from schemas.errors_roles import ForeignMessage
from schemas.segments import Envelope, LogSegment, Stream
from sinks.segment_message import SegmentReader
from tests.sinks.segments_of import TABLES, logs_of

READER = SegmentReader(1337, Settings(chain="local").facts, TABLES, {})


def message(segment: LogSegment) -> Envelope:
    value = encode_log_segment(segment)
    return Envelope("raw.logs.history", b"1337:0", value, {"schema": "LogSegment"})


def test_a_segment_that_belongs_here_is_read() -> None:
    segment = logs_of(0, 9)
    assert READER.read(message(segment)).name == segment.name


@pytest.mark.parametrize("stream", ["plums", ""])
def test_a_stream_that_is_none_is_foreign(stream: str) -> None:
    segment = logs_of(0, 9)
    name = replace(segment.name, stream=cast("Stream", stream))
    with pytest.raises(ForeignMessage, match="no stream"):
        READER.read(message(replace(segment, name=name)))
