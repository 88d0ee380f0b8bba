"""Segments and updates in, Avro messages out, and back.

A message is the Avro single-object encoding: C3 01, the schema's 8-byte fingerprint, the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from typing import Any

import fastavro

from schemas.avro_schemas import LAYOUT, buffer_names, fingerprint, fingerprints, released_schemas
from schemas.columns import ColumnBlock, from_buffers, to_buffers
from schemas.errors import Permanent
from schemas.kinds import parse_kind
from schemas.segments import (
    AggregateSegment,
    BlockRef,
    BlockSegment,
    BlockSpan,
    DeadLetter,
    EventSegment,
    FinalityAdvanced,
    ForkUpdate,
    HeadObserved,
    IngestCheckpoint,
    LogSegment,
    PublisherClaim,
    SegmentName,
    SegmentWanted,
)
from schemas.tables import (
    AGGREGATE_TABLES,
    BLOCKS,
    HEADER_REFS,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    Table,
)
from schemas.tables import Verification as Level

_MARKER = b"\xc3\x01"
_AGGREGATES = {table.name: table for table in AGGREGATE_TABLES}


class UnknownMessage(Permanent):
    """Bytes that no schema of ours describes."""

    code = "HR-3901"
    what = "a message of {size_bytes} bytes could not be read as {expected}: {reason}"
    why = "it was written by a newer Headrace or by something else, or it is damaged"
    fix = "upgrade Headrace, or look at the message in dead_letters and drive it again"


def _encode(message: str, body: Mapping[str, Any]) -> bytes:
    key = (message, LAYOUT)
    out = BytesIO()
    out.write(_MARKER + fingerprint(key))
    fastavro.schemaless_writer(out, released_schemas()[key], body)
    return out.getvalue()


def _decode(message: str, value: bytes) -> dict[str, Any]:
    key = fingerprints().get(bytes(value[2:10])) if value[:2] == _MARKER else None
    if key is None or key[0] != message:
        raise UnknownMessage(size_bytes=len(value), expected=message, reason="unknown schema")
    reader = None if key[1] == LAYOUT else released_schemas()[message, LAYOUT]
    stream = BytesIO(value)
    stream.seek(10)
    try:
        body = fastavro.schemaless_reader(stream, released_schemas()[key], reader)
    except (ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise UnknownMessage(size_bytes=len(value), expected=message, reason=str(error)) from error
    if not isinstance(body, dict):
        raise UnknownMessage(size_bytes=len(value), expected=message, reason="not an Avro record")
    return body


def _pack(table: Table, block: ColumnBlock) -> dict[str, Any]:
    body: dict[str, Any] = {"rows": block.rows}
    for spec in table.columns:
        buffers = to_buffers(spec.kind, block.columns[spec.name])
        body.update(zip(buffer_names(spec.kind, spec.name), buffers, strict=True))
    return body


def _unpack(table: Table, body: dict[str, Any], message: str) -> ColumnBlock:
    rows = body["rows"]
    columns = {}
    try:
        for spec in table.columns:
            buffers = [body[name] for name in buffer_names(spec.kind, spec.name)]
            columns[spec.name] = from_buffers(spec.kind, rows, buffers)
    except ValueError as error:
        size = sum(len(part) for part in body.values() if isinstance(part, bytes))
        raise UnknownMessage(size_bytes=size, expected=message, reason=str(error)) from error
    return ColumnBlock(table.name, rows, columns)


def _name(name: SegmentName) -> dict[str, Any]:
    return {slot: getattr(name, slot) for slot in SegmentName.__slots__}


def encode_block_segment(segment: BlockSegment) -> bytes:
    """A BlockSegment as a message."""
    body = {
        "name": _name(segment.name),
        "observed_at_ms": segment.observed_at_ms,
        "blocks": _pack(BLOCKS, segment.blocks),
        "transactions": _pack(TRANSACTION_TABLE, segment.transactions),
        "withdrawals": _pack(WITHDRAWALS, segment.withdrawals),
    }
    return _encode("BlockSegment", body)


def decode_block_segment(value: bytes) -> BlockSegment:
    """The BlockSegment of a message; columns are read-only views.

    Raises
    ------
    UnknownMessage
        If the bytes are not a BlockSegment of any released version.
    """
    body = _decode("BlockSegment", value)
    return BlockSegment(
        SegmentName(**body["name"]),
        body["observed_at_ms"],
        _unpack(BLOCKS, body["blocks"], "BlockSegment"),
        _unpack(TRANSACTION_TABLE, body["transactions"], "BlockSegment"),
        _unpack(WITHDRAWALS, body["withdrawals"], "BlockSegment"),
    )


def encode_log_segment(segment: LogSegment) -> bytes:
    """A LogSegment as a message."""
    body = {
        "name": _name(segment.name),
        "observed_at_ms": segment.observed_at_ms,
        "level": segment.level.name,
        "proven": list(segment.proven),
        "unproven": list(segment.unproven),
        "headers": _pack(HEADER_REFS, segment.headers),
        "logs": _pack(LOGS, segment.logs),
    }
    return _encode("LogSegment", body)


def decode_log_segment(value: bytes) -> LogSegment:
    """The LogSegment of a message; columns are read-only views.

    Raises
    ------
    UnknownMessage
        If the bytes are not a LogSegment of any released version.
    """
    body = _decode("LogSegment", value)
    return LogSegment(
        SegmentName(**body["name"]),
        body["observed_at_ms"],
        Level[body["level"]],
        tuple(body["proven"]),
        tuple(body["unproven"]),
        _unpack(HEADER_REFS, body["headers"], "LogSegment"),
        _unpack(LOGS, body["logs"], "LogSegment"),
    )


def encode_event_segment(segment: EventSegment, tables: Mapping[str, Table]) -> bytes:
    """An EventSegment as a message; `tables` declares every table that it holds, by name."""
    return _encode_tables("EventSegment", segment, tables)


def encode_aggregate_segment(segment: AggregateSegment) -> bytes:
    """An AggregateSegment as a message."""
    return _encode_tables("AggregateSegment", segment, _AGGREGATES)


def _encode_tables(
    message: str, segment: EventSegment | AggregateSegment, tables: Mapping[str, Table]
) -> bytes:
    packed = []
    for block in segment.tables:
        columns = []
        if block.rows:
            for spec in tables[block.table].columns:
                buffers = to_buffers(spec.kind, block.columns[spec.name])
                columns.append({"name": spec.name, "kind": spec.kind_text, "buffers": buffers})
        packed.append({"table": block.table, "rows": block.rows, "columns": columns})
    body = {
        "name": _name(segment.name),
        "observed_at_ms": segment.observed_at_ms,
        "tables": packed,
    }
    return _encode(message, body)


def decode_event_segment(value: bytes) -> EventSegment:
    """The EventSegment of a message: it describes its own columns.

    Raises
    ------
    UnknownMessage
        If the bytes are not an EventSegment of any released version.
    """
    return EventSegment(*_decode_tables("EventSegment", value))


def decode_aggregate_segment(value: bytes) -> AggregateSegment:
    """The AggregateSegment of a message: it describes its own columns.

    Raises
    ------
    UnknownMessage
        If the bytes are not an AggregateSegment of any released version.
    """
    return AggregateSegment(*_decode_tables("AggregateSegment", value))


def _decode_tables(message: str, value: bytes) -> tuple[SegmentName, int, tuple[ColumnBlock, ...]]:
    body = _decode(message, value)
    blocks = []
    try:
        for table in body["tables"]:
            columns = {
                column["name"]: from_buffers(
                    parse_kind(column["kind"]), table["rows"], column["buffers"]
                )
                for column in table["columns"]
            }
            blocks.append(ColumnBlock(table["table"], table["rows"], columns))
    except (ValueError, StopIteration) as error:
        raise UnknownMessage(size_bytes=len(value), expected=message, reason=str(error)) from error
    return SegmentName(**body["name"]), body["observed_at_ms"], tuple(blocks)


def _plain_encoder(message: str, value: object) -> bytes:
    return _encode(message, asdict(value))  # type: ignore[call-overload]


def encode_head_observed(value: HeadObserved) -> bytes:
    """A HeadObserved as a message."""
    return _plain_encoder("HeadObserved", value)


def decode_head_observed(value: bytes) -> HeadObserved:
    """The HeadObserved of a message; raises UnknownMessage."""
    return HeadObserved(**_decode("HeadObserved", value))


def encode_finality_advanced(value: FinalityAdvanced) -> bytes:
    """A FinalityAdvanced as a message."""
    return _plain_encoder("FinalityAdvanced", value)


def decode_finality_advanced(value: bytes) -> FinalityAdvanced:
    """The FinalityAdvanced of a message; raises UnknownMessage."""
    return FinalityAdvanced(**_decode("FinalityAdvanced", value))


def encode_fork_update(value: ForkUpdate) -> bytes:
    """A ForkUpdate as a message."""
    return _plain_encoder("ForkUpdate", value)


def decode_fork_update(value: bytes) -> ForkUpdate:
    """The ForkUpdate of a message; raises UnknownMessage."""
    body = _decode("ForkUpdate", value)
    for slot in ("head", "safe", "finalized"):
        body[slot] = BlockRef(**body[slot]) if body[slot] is not None else None
    for slot in ("removed", "added"):
        body[slot] = tuple(BlockRef(**ref) for ref in body[slot])
    return ForkUpdate(**body)


def encode_segment_wanted(value: SegmentWanted) -> bytes:
    """A SegmentWanted as a message."""
    return _plain_encoder("SegmentWanted", value)


def decode_segment_wanted(value: bytes) -> SegmentWanted:
    """The SegmentWanted of a message; raises UnknownMessage."""
    body = _decode("SegmentWanted", value)
    return SegmentWanted(**{**body, "streams": tuple(body["streams"])})


def encode_publisher_claim(value: PublisherClaim) -> bytes:
    """A PublisherClaim as a message."""
    return _plain_encoder("PublisherClaim", value)


def decode_publisher_claim(value: bytes) -> PublisherClaim:
    """The PublisherClaim of a message; raises UnknownMessage."""
    return PublisherClaim(**_decode("PublisherClaim", value))


def encode_ingest_checkpoint(value: IngestCheckpoint) -> bytes:
    """An IngestCheckpoint as a message."""
    return _plain_encoder("IngestCheckpoint", value)


def decode_ingest_checkpoint(value: bytes) -> IngestCheckpoint:
    """The IngestCheckpoint of a message; raises UnknownMessage."""
    body = _decode("IngestCheckpoint", value)
    body["covered"] = tuple(BlockSpan(**span) for span in body["covered"])
    if body["finalized"] is not None:
        body["finalized"] = BlockRef(**body["finalized"])
    return IngestCheckpoint(**body)


def encode_dead_letter(value: DeadLetter) -> bytes:
    """A DeadLetter as a message."""
    return _plain_encoder("DeadLetter", value)


def decode_dead_letter(value: bytes) -> DeadLetter:
    """The DeadLetter of a message; raises UnknownMessage."""
    return DeadLetter(**_decode("DeadLetter", value))


def message_name(value: bytes) -> str:
    """Which message the bytes say they are.

    Raises
    ------
    UnknownMessage
        If no released schema has their fingerprint.
    """
    key = fingerprints().get(bytes(value[2:10])) if value[:2] == _MARKER else None
    if key is None:
        raise UnknownMessage(size_bytes=len(value), expected="a message", reason="unknown schema")
    return key[0]
