"""The bytes of one segment's message in, those of the segment derived from it out.

What an agent calls, whatever carries the messages. A step is pure: the same bytes give the same
bytes, and bytes that are no segment of the stream it takes raise `UnknownMessage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from processors.abi import Layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from schemas.codec import (
    UnknownMessage,
    decode_event_segment,
    decode_log_segment,
    encode_aggregate_segment,
    encode_event_segment,
)
from schemas.segments import SegmentName, Stream


@dataclass(frozen=True, slots=True)
class Derived:
    """The message that a step makes."""

    name: SegmentName
    """What it holds."""
    value: bytes
    """The Avro message."""
    rows_in: int
    """Rows of the segment that it was made of."""


@dataclass(frozen=True, slots=True)
class Step:
    """One agent that derives a stream from another: message by message, each on its own."""

    agent: str
    """Its name in the settings."""
    takes: Stream
    """The stream that it reads."""
    gives: Stream
    """The stream that it writes."""
    derive: Callable[[bytes], Derived]
    """What it does."""


def build_steps(layouts: Layouts) -> tuple[Step, ...]:
    """Every step there is; a new agent is a line here.

    Parameters
    ----------
    layouts
        What `build_layouts` made of the packs and the user's contracts.
    """
    tables = {table.name: table for table in layouts.tables}

    def decode(value: bytes) -> Derived:
        segment = decode_log_segment(value)
        with _consistent("LogSegment", segment.name, value):
            events = decode_logs(segment, layouts)
        return Derived(events.name, encode_event_segment(events, tables), segment.logs.rows)

    def aggregate(value: bytes) -> Derived:
        segment = decode_event_segment(value)
        with _consistent("EventSegment", segment.name, value):
            sums = aggregate_events(segment)
        rows = sum(block.rows for block in segment.tables)
        return Derived(sums.name, encode_aggregate_segment(sums), rows)

    return (
        Step("decode", "logs", "events", decode),
        Step("aggregate", "events", "aggregates", aggregate),
    )


@contextmanager
def _consistent(message: str, name: SegmentName, value: bytes) -> Iterator[None]:
    """A message may read well and still hold what no segment of ours does.

    Raises
    ------
    UnknownMessage
    """
    try:
        if not 0 <= name.from_block <= name.to_block:
            raise ValueError(f"it goes from block {name.from_block} to {name.to_block}")
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnknownMessage(size_bytes=len(value), expected=message, reason=reason) from error
