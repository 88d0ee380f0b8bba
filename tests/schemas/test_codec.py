"""Messages round-trip, every released schema stays readable, and strangers are refused."""

from __future__ import annotations

import json
from importlib import resources
from io import BytesIO
from pathlib import Path

import avro.compatibility
import avro.io
import avro.schema
import fastavro
import pytest

from schemas import codec
from schemas.avro_schemas import LAYOUT, declared_schemas, released_schemas, write_schemas
from schemas.columns import ColumnBlock, to_python
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
    BLOCKS,
    HEADER_REFS,
    LOGS,
    TOKEN_FLOWS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    Table,
    Verification,
    empty_block,
    event_table,
)
from tests.schemas.filled_blocks import filled

NAME = SegmentName(1, "blocks", "history", 10, 19, b"\7" * 32, "00ff00ff00ff00ff")
LAYOUTS = resources.files("schemas").joinpath("avro")


def assert_same(table: Table, left: ColumnBlock, right: ColumnBlock) -> None:
    assert left.rows == right.rows
    for spec in table.columns:
        left_values = to_python(spec.kind, left.columns[spec.name])
        assert left_values == to_python(spec.kind, right.columns[spec.name])


def test_segments_round_trip() -> None:
    blocks = BlockSegment(
        NAME, 5, filled(BLOCKS), filled(TRANSACTION_TABLE), empty_block(WITHDRAWALS)
    )
    again = codec.decode_block_segment(codec.encode_block_segment(blocks))
    assert (again.name, again.observed_at_ms) == (NAME, 5)
    assert_same(BLOCKS, blocks.blocks, again.blocks)
    assert_same(TRANSACTION_TABLE, blocks.transactions, again.transactions)
    logs = LogSegment(
        NAME, 5, Verification.full, ("receiptsRoot",), (), filled(HEADER_REFS), filled(LOGS)
    )
    again_logs = codec.decode_log_segment(codec.encode_log_segment(logs))
    assert (again_logs.level, again_logs.proven) == (Verification.full, ("receiptsRoot",))
    assert_same(LOGS, logs.logs, again_logs.logs)
    table = event_table("things", "A thing.", ())
    events = EventSegment(NAME, 5, (filled(table), ColumnBlock("others", 0, {})))
    again_events = codec.decode_event_segment(
        codec.encode_event_segment(events, {table.name: table})
    )
    assert_same(table, events.tables[0], again_events.tables[0])
    assert again_events.tables[1] == ColumnBlock("others", 0, {})
    aggregates = AggregateSegment(NAME, 5, (filled(TOKEN_FLOWS), ColumnBlock("pool_trades", 0, {})))
    again_aggregates = codec.decode_aggregate_segment(codec.encode_aggregate_segment(aggregates))
    assert (again_aggregates.name, again_aggregates.observed_at_ms) == (NAME, 5)
    assert_same(TOKEN_FLOWS, aggregates.tables[0], again_aggregates.tables[0])
    assert again_aggregates.tables[1] == ColumnBlock("pool_trades", 0, {})


def test_plain_messages_round_trip() -> None:
    ref = BlockRef(3, b"\1" * 32)
    fork = ForkUpdate(1, ref, None, ref, (ref,), (ref, ref), 9)
    assert codec.decode_fork_update(codec.encode_fork_update(fork)) == fork
    head = HeadObserved(1, 3, b"\1" * 32, b"\2" * 32, 4, 5, "node", False)
    assert codec.decode_head_observed(codec.encode_head_observed(head)) == head
    final = FinalityAdvanced(1, "finalized", 3, b"\1" * 32, 7)
    assert codec.decode_finality_advanced(codec.encode_finality_advanced(final)) == final
    letter = DeadLetter("decode", "HR-3901", "why", "raw.logs.head", 0, 4, b"k", b"v", 8)
    assert codec.decode_dead_letter(codec.encode_dead_letter(letter)) == letter


@pytest.mark.parametrize("last_hash", [None, b"\3" * 32])
def test_a_wanted_segment_round_trips(last_hash: bytes | None) -> None:
    wanted = SegmentWanted(1, 10, 19, last_hash, ("blocks", "logs"), "r-1", "missing", 5)
    assert codec.decode_segment_wanted(codec.encode_segment_wanted(wanted)) == wanted


def test_a_claim_round_trips() -> None:
    claim = PublisherClaim(1, "beat", 7, "00ff", "host", 12, 5)
    assert codec.decode_publisher_claim(codec.encode_publisher_claim(claim)) == claim


@pytest.mark.parametrize(("finalized", "head"), [(None, None), (BlockRef(3, b"\1" * 32), 9)])
def test_a_checkpoint_round_trips(finalized: BlockRef | None, head: int | None) -> None:
    spans = (BlockSpan(0, 9), BlockSpan(20, 29))
    written = IngestCheckpoint(1, "00ff", spans, finalized, head, 7, "one", 8)
    assert codec.decode_ingest_checkpoint(codec.encode_ingest_checkpoint(written)) == written


def test_the_released_files_are_the_declared_schemas(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    for file in (tmp_path / f"v{LAYOUT}").iterdir():
        shipped = LAYOUTS.joinpath(f"v{LAYOUT}", file.name).read_text("utf-8")
        assert shipped == file.read_text("utf-8"), f"{file.name}: run `make golden`"


@pytest.mark.parametrize("key", sorted(released_schemas()), ids=lambda key: f"{key[0]}-v{key[1]}")
def test_every_released_schema_stays_readable(key: tuple[str, int]) -> None:
    """The Avro reference implementation's rules: today's reader, any released writer."""
    name, layout = key
    writer = avro.schema.parse(LAYOUTS.joinpath(f"v{layout}", f"{name}.avsc").read_text("utf-8"))
    reader = avro.schema.parse(json.dumps(declared_schemas()[name]))
    result = avro.compatibility.ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
    assert result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible


@pytest.mark.parametrize("value", [b"", b"hello, world", b"\xc3\x01" + bytes(8) + b"body"])
def test_a_foreign_message_is_refused_with_a_code(value: bytes) -> None:
    with pytest.raises(codec.UnknownMessage) as raised:
        codec.decode_log_segment(value)
    assert raised.value.code == "HR-3901"


def test_a_truncated_message_is_refused() -> None:
    logs = LogSegment(NAME, 5, Verification.off, (), (), filled(HEADER_REFS), filled(LOGS))
    value = codec.encode_log_segment(logs)
    for cut in range(10, len(value), 97):
        with pytest.raises(codec.UnknownMessage):
            codec.decode_log_segment(value[:cut])


def test_fastavro_and_avro_read_each_others_bytes() -> None:
    """The hot path's bytes are plain Avro: the reference package reads them."""
    value = codec.encode_head_observed(HeadObserved(1, 3, b"\1" * 32, b"\2" * 32, 4, 5, "node"))
    schema = avro.schema.parse(json.dumps(declared_schemas()["HeadObserved"]))
    reader = avro.io.DatumReader(schema)
    body = reader.read(avro.io.BinaryDecoder(BytesIO(value[10:])))
    parsed = released_schemas()["HeadObserved", LAYOUT]
    assert body == fastavro.schemaless_reader(BytesIO(value[10:]), parsed, None)
