"""What is written and read without copies is what fastavro writes and reads."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.avro_schemas import LAYOUT, buffer_names, declared_schemas, released_schemas
from schemas.avro_wire import long_bytes, take_count, take_long, take_spans, texts_bytes
from schemas.columns import ColumnBlock, from_python, to_buffers, to_python
from schemas.segments import (
    AggregateSegment,
    BlockSegment,
    EventSegment,
    LogSegment,
    SegmentName,
)
from schemas.tables import (
    BLOCKS,
    HEADER_REFS,
    LOGS,
    TOKEN_FLOWS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    ColumnSpec,
    Table,
    Verification,
    empty_block,
    event_table,
)
from tests.schemas.filled_blocks import filled

NAME = SegmentName(1, "logs", "head", 10**9, 10**9 + 9, b"\7" * 32, "00ff00ff00ff00ff")
THINGS = event_table(
    "things",
    "Things.",
    (
        ColumnSpec("words", "[u256]", "Words."),
        ColumnSpec("pair", "(string,[bytes20])", "A pair."),
        ColumnSpec("maybe", "?u64", "Perhaps a number."),
    ),
)
TABLES = {THINGS.name: THINGS}


def things() -> ColumnBlock:
    """Two rows of THINGS."""
    parameters: dict[str, list[Any]] = {
        "words": [[1, 2**255], []],
        "pair": [(b"", []), (b"ab", [b"\1" * 20])],
        "maybe": [None, 7],
    }
    columns = filled(event_table("things", "Things.", ())).columns
    for name, values in parameters.items():
        columns[name] = from_python(THINGS.column(name).kind, values)
    return ColumnBlock("things", 2, columns)


def record(table: Table, block: ColumnBlock) -> dict[str, Any]:
    """A block as fastavro takes it."""
    body: dict[str, Any] = {"rows": block.rows}
    for spec in table.columns:
        buffers = to_buffers(spec.kind, block.columns[spec.name])
        body.update(zip(buffer_names(spec.kind, spec.name), buffers, strict=True))
    return body


def described(table: Table, block: ColumnBlock) -> dict[str, Any]:
    """A block that describes its columns, as fastavro takes it."""
    columns = [
        {
            "name": spec.name,
            "kind": spec.kind_text,
            "buffers": to_buffers(spec.kind, block.columns[spec.name]),
        }
        for spec in table.columns
        if block.rows
    ]
    return {"table": block.table, "rows": block.rows, "columns": columns}


def by_fastavro(message: str, body: dict[str, Any]) -> bytes:
    """The body as fastavro writes it."""
    name = {slot: getattr(NAME, slot) for slot in SegmentName.__slots__}
    out = BytesIO()
    whole = {"name": name, "observed_at_ms": 5, **body}
    fastavro.schemaless_writer(out, released_schemas()[message, LAYOUT], whole)
    return out.getvalue()


def test_blocks_are_written_as_fastavro_writes_them() -> None:
    blocks, transactions, withdrawals = (
        filled(BLOCKS),
        filled(TRANSACTION_TABLE),
        empty_block(WITHDRAWALS),
    )
    value = codec.encode_block_segment(BlockSegment(NAME, 5, blocks, transactions, withdrawals))
    body = {
        "blocks": record(BLOCKS, blocks),
        "transactions": record(TRANSACTION_TABLE, transactions),
        "withdrawals": record(WITHDRAWALS, withdrawals),
    }
    assert value[10:] == by_fastavro("BlockSegment", body)


@pytest.mark.parametrize("proven", [(), ("header hash", "größer" * 20)])
def test_logs_are_written_as_fastavro_writes_them(proven: tuple[str, ...]) -> None:
    headers, logs = filled(HEADER_REFS), filled(LOGS)
    segment = LogSegment(NAME, 5, Verification.receipts, proven, ("x",), headers, logs)
    body = {
        "level": "receipts",
        "proven": list(proven),
        "unproven": ["x"],
        "headers": record(HEADER_REFS, headers),
        "logs": record(LOGS, logs),
    }
    value = codec.encode_log_segment(segment)
    assert value[10:] == by_fastavro("LogSegment", body)
    assert codec.decode_log_segment(value).proven == proven


@pytest.mark.parametrize("filling", ["things", "none", "no table"])
def test_events_are_written_as_fastavro_writes_them(filling: str) -> None:
    held = {"things": (things(),), "none": (ColumnBlock("things", 0, {}),), "no table": ()}
    tables = held[filling]
    value = codec.encode_event_segment(EventSegment(NAME, 5, tables), TABLES)
    body = {"tables": [described(THINGS, block) for block in tables]}
    assert value[10:] == by_fastavro("EventSegment", body)
    again = codec.decode_event_segment(value)
    assert [(block.table, block.rows) for block in again.tables] == [
        (block.table, block.rows) for block in tables
    ]
    for left, right in zip(tables, again.tables, strict=True):
        for name, held_column in left.columns.items():
            kind = THINGS.column(name).kind
            assert to_python(kind, held_column) == to_python(kind, right.columns[name])


def test_aggregates_are_written_as_fastavro_writes_them() -> None:
    segment = AggregateSegment(NAME, 5, (filled(TOKEN_FLOWS),))
    body = {"tables": [described(TOKEN_FLOWS, segment.tables[0])]}
    value = codec.encode_aggregate_segment(segment)
    assert value[10:] == by_fastavro("AggregateSegment", body)


def test_columns_are_views_of_the_message() -> None:
    value = codec.encode_event_segment(EventSegment(NAME, 5, (things(),)), TABLES)
    block = codec.decode_event_segment(value).tables[0]
    numbers = block.columns["block_number"]
    assert isinstance(numbers, np.ndarray)
    assert np.shares_memory(numbers, np.frombuffer(value, np.uint8))
    assert not numbers.flags.writeable


def test_arrays_in_several_blocks_are_read() -> None:
    """Another writer may cut an array, and give each block's size."""
    one = long_bytes(1)
    text = b"\2x"
    value = one + text + long_bytes(-2) + long_bytes(4) + text * 2 + b"\0"
    counts, at = [], 0
    while True:
        count, at = take_count(value, at)
        if not count:
            break
        counts.append(count)
        _, at = take_spans(value, at, count)
    assert (counts, at) == ([1, 2], len(value))
    assert texts_bytes([]) == b"\0"


def test_a_message_of_an_older_schema_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    headers, logs = filled(HEADER_REFS), filled(LOGS)
    segment = LogSegment(NAME, 5, Verification.full, ("a",), ("b",), headers, logs)
    older = declared_schemas()["LogSegment"]
    older["fields"].insert(2, {"name": "dropped_since", "type": "string"})
    parsed = fastavro.parse_schema(older)
    schemas = {**released_schemas(), ("LogSegment", 0): parsed}
    monkeypatch.setattr(codec, "released_schemas", lambda: schemas)
    monkeypatch.setattr(codec, "fingerprints", lambda: {b"12345678": ("LogSegment", 0)})
    current = codec.encode_log_segment(segment)
    body = fastavro.schemaless_reader(
        BytesIO(current[10:]), released_schemas()["LogSegment", LAYOUT], None
    )
    assert isinstance(body, dict)
    out = BytesIO(b"\xc3\x0112345678")
    out.seek(10)
    fastavro.schemaless_writer(out, parsed, {**body, "dropped_since": "then"})
    again = codec.decode_log_segment(out.getvalue())
    assert codec.encode_log_segment(again) == current


def test_damage_is_refused_or_reads_as_something() -> None:
    """No byte that is turned makes the reader fail in any way but its own."""
    events = codec.encode_event_segment(EventSegment(NAME, 5, (things(),)), TABLES)
    logs = codec.encode_log_segment(
        LogSegment(NAME, 5, Verification.off, ("a",), (), filled(HEADER_REFS), filled(LOGS))
    )
    refused = 0
    for value, decode in ((events, codec.decode_event_segment), (logs, codec.decode_log_segment)):
        for at in range(len(value)):
            damaged = bytearray(value)
            damaged[at] ^= (0x01, 0x80, 0xFF)[at % 3]
            try:
                decode(bytes(damaged))
            except codec.UnknownMessage:
                refused += 1
    assert refused


@pytest.mark.parametrize("cut", [b"\x80", b"\xff" * 12, b"\3", b"\4x"])
def test_lengths_that_lie_are_refused(cut: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        take_spans(cut, 0, 1)


@given(st.integers(-(2**63), 2**63 - 1))
def test_longs_round_trip(value: int) -> None:
    written = long_bytes(value)
    assert take_long(b"x" + written, 1) == (value, len(written) + 1)
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema({"type": "long"}), value)
    assert written == out.getvalue()
