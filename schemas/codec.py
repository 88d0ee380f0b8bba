"""Segments and updates in, Avro messages out, and back.

A message is the Avro single-object encoding: C3 01, the schema's 8-byte fingerprint, the body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from typing import Any, cast

import fastavro

from schemas.avro_schemas import LAYOUT, fingerprint, fingerprints, released_schemas
from schemas.avro_wire import (
    END,
    long_bytes,
    put_described,
    put_rows,
    take_count,
    take_described,
    take_long,
    take_rows,
    take_symbol,
    take_text,
    take_texts,
    text_bytes,
    texts_bytes,
)
from schemas.columns import ColumnBlock, Part
from schemas.errors import Permanent
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
    Lane,
    LogSegment,
    PublisherClaim,
    SegmentName,
    SegmentWanted,
    Stream,
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

HASH_BYTES = 32
LANES: tuple[Lane, ...] = ("history", "head")
LEVELS = (Level.off, Level.header, Level.receipts, Level.full)
"""Symbols of the schemas' enums, in their order."""
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


def _opened(message: str, name: SegmentName, observed_at_ms: int) -> list[Part]:
    """A segment's message up to its name and time."""
    if len(name.last_hash) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(name.last_hash)}")
    return [
        _MARKER + fingerprint((message, LAYOUT)),
        long_bytes(name.chain_id),
        text_bytes(name.stream),
        long_bytes(LANES.index(name.lane)),
        long_bytes(name.from_block),
        long_bytes(name.to_block),
        name.last_hash,
        text_bytes(name.content_version),
        long_bytes(observed_at_ms),
    ]


@contextmanager
def _reading(message: str, value: bytes) -> Iterator[bytes]:
    """The message in today's schema, while it is read.

    Raises
    ------
    UnknownMessage
        If it is of no released schema, or does not read as one.
    """
    if value[:10] != _MARKER + fingerprint((message, LAYOUT)):
        value = _encode(message, _decode(message, value))
    try:
        yield value
    except (ValueError, IndexError, StopIteration, OverflowError) as error:
        raise UnknownMessage(size_bytes=len(value), expected=message, reason=str(error)) from error


def _take_name(value: bytes) -> tuple[SegmentName, int, int]:
    """A segment's name and time, and where its columns begin."""
    chain_id, at = take_long(value, 10)
    stream, at = take_text(value, at)
    lane, at = take_symbol(value, at, LANES)
    from_block, at = take_long(value, at)
    to_block, at = take_long(value, at)
    last_hash = value[at : at + HASH_BYTES]
    version, at = take_text(value, at + HASH_BYTES)
    observed_at_ms, at = take_long(value, at)
    stream = cast("Stream", stream)
    name = SegmentName(chain_id, stream, lane, from_block, to_block, last_hash, version)
    return name, observed_at_ms, at


def encode_block_segment(segment: BlockSegment) -> bytes:
    """A BlockSegment as a message."""
    parts = _opened("BlockSegment", segment.name, segment.observed_at_ms)
    put_rows(parts, BLOCKS, segment.blocks)
    put_rows(parts, TRANSACTION_TABLE, segment.transactions)
    put_rows(parts, WITHDRAWALS, segment.withdrawals)
    return b"".join(parts)


def decode_block_segment(value: bytes) -> BlockSegment:
    """The BlockSegment of a message; columns are read-only views of it.

    Raises
    ------
    UnknownMessage
        If the bytes are not a BlockSegment of any released version.
    """
    with _reading("BlockSegment", value) as current:
        name, observed_at_ms, at = _take_name(current)
        blocks, at = take_rows(current, at, BLOCKS)
        transactions, at = take_rows(current, at, TRANSACTION_TABLE)
        withdrawals, at = take_rows(current, at, WITHDRAWALS)
        return BlockSegment(name, observed_at_ms, blocks, transactions, withdrawals)


def encode_log_segment(segment: LogSegment) -> bytes:
    """A LogSegment as a message."""
    parts = _opened("LogSegment", segment.name, segment.observed_at_ms)
    parts.append(long_bytes(LEVELS.index(segment.level)))
    parts += (texts_bytes(segment.proven), texts_bytes(segment.unproven))
    put_rows(parts, HEADER_REFS, segment.headers)
    put_rows(parts, LOGS, segment.logs)
    return b"".join(parts)


def decode_log_segment(value: bytes) -> LogSegment:
    """The LogSegment of a message; columns are read-only views of it.

    Raises
    ------
    UnknownMessage
        If the bytes are not a LogSegment of any released version.
    """
    with _reading("LogSegment", value) as current:
        name, observed_at_ms, at = _take_name(current)
        level, at = take_symbol(current, at, LEVELS)
        proven, at = take_texts(current, at)
        unproven, at = take_texts(current, at)
        headers, at = take_rows(current, at, HEADER_REFS)
        logs, at = take_rows(current, at, LOGS)
        return LogSegment(name, observed_at_ms, level, proven, unproven, headers, logs)


def encode_event_segment(segment: EventSegment, tables: Mapping[str, Table]) -> bytes:
    """An EventSegment as a message; `tables` declares every table that it holds, by name."""
    return _encode_tables("EventSegment", segment, tables)


def encode_aggregate_segment(segment: AggregateSegment) -> bytes:
    """An AggregateSegment as a message."""
    return _encode_tables("AggregateSegment", segment, _AGGREGATES)


def _encode_tables(
    message: str, segment: EventSegment | AggregateSegment, tables: Mapping[str, Table]
) -> bytes:
    parts = _opened(message, segment.name, segment.observed_at_ms)
    if segment.tables:
        parts.append(long_bytes(len(segment.tables)))
    for block in segment.tables:
        put_described(parts, tables[block.table] if block.rows else None, block)
    parts.append(END)
    return b"".join(parts)


def decode_event_segment(value: bytes) -> EventSegment:
    """The EventSegment of a message: it describes its own columns, which are views of it.

    Raises
    ------
    UnknownMessage
        If the bytes are not an EventSegment of any released version.
    """
    return EventSegment(*_decode_tables("EventSegment", value))


def decode_aggregate_segment(value: bytes) -> AggregateSegment:
    """The AggregateSegment of a message: it describes its own columns, which are views of it.

    Raises
    ------
    UnknownMessage
        If the bytes are not an AggregateSegment of any released version.
    """
    return AggregateSegment(*_decode_tables("AggregateSegment", value))


def _decode_tables(message: str, value: bytes) -> tuple[SegmentName, int, tuple[ColumnBlock, ...]]:
    with _reading(message, value) as current:
        name, observed_at_ms, at = _take_name(current)
        blocks: list[ColumnBlock] = []
        while True:
            count, at = take_count(current, at)
            if not count:
                return name, observed_at_ms, tuple(blocks)
            for _ in range(count):
                block, at = take_described(current, at)
                blocks.append(block)


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
