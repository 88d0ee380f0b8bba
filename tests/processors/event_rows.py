"""Decoded events as plain dictionaries in, EventSegments out; their aggregates back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.columns import ColumnBlock, from_python, to_python
from schemas.events import builtin_events
from schemas.segments import AggregateSegment, EventSegment, SegmentName
from schemas.tables import AGGREGATE_TABLES, EVENT_IDENTITY, LOG_POSITION, Table

EVENTS: dict[str, Table] = {event.table.name: event.table for event in builtin_events()}
Row = dict[str, Any]
Key = tuple[Any, ...]


def event_row(
    table: str, block_number: int, log_index: int, address: bytes, sub_index: int = 0, **values: Any
) -> Row:
    """A row of an event's table; what is not given is zero."""
    row: Row = {
        "block_number": block_number,
        "block_hash": block_number.to_bytes(32, "big"),
        "block_time": 1_600_000_000 + block_number,
        "transaction_hash": log_index.to_bytes(32, "big"),
        "transaction_index": log_index // 3,
        "log_index": log_index,
        "sub_index": sub_index,
        "address": address,
    }
    assert list(row) == [spec.name for spec in EVENT_IDENTITY]
    assert len(LOG_POSITION) == 6
    for spec in EVENTS[table].columns[len(EVENT_IDENTITY) :]:
        kind = spec.kind
        zero: Any = bytes(kind.width) if kind.text.startswith("bytes") else 0
        row[spec.name] = values.pop(spec.name, zero)
    assert not values
    return row


def event_segment(rows: Mapping[str, Sequence[Row]], last: int = 9) -> EventSegment:
    """A segment of these events, sorted as the chain has them; every other table is empty."""
    blocks = []
    for table in EVENTS.values():
        mine = sorted(
            rows.get(table.name, ()),
            key=lambda row: (row["block_number"], row["log_index"], row["sub_index"]),
        )
        columns = {
            spec.name: from_python(spec.kind, [row[spec.name] for row in mine])
            for spec in table.columns
        }
        blocks.append(ColumnBlock(table.name, len(mine), columns if mine else {}))
    name = SegmentName(1, "events", "history", 0, last, bytes(32), "0" * 16)
    return EventSegment(name, 1_700_000_000_000, tuple(blocks))


def aggregate_rows(segment: AggregateSegment) -> dict[str, dict[Key, Row]]:
    """The rows of each table by identity without the block's hash; two of one key are an error."""
    found: dict[str, dict[Key, Row]] = {}
    for table, block in zip(AGGREGATE_TABLES, segment.tables, strict=True):
        assert block.table == table.name
        rows = found[table.name] = {}
        if not block.rows:
            assert block.columns == {}
            continue
        assert list(block.columns) == [spec.name for spec in table.columns]
        values = [to_python(spec.kind, block.columns[spec.name]) for spec in table.columns]
        for row_values in zip(*values, strict=True):
            row = dict(zip(block.columns, row_values, strict=True))
            key = tuple(row[name] for name in table.identity if name != "block_hash")
            assert key not in rows
            rows[key] = row
    return found
