"""Columns hold what the payloads say, value by value."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.build import BlockColumns, block_segment, build_block_columns
from ingest.build_logs import LogColumns, build_filtered_log_columns, build_log_columns, log_segment
from ingest.verdict import Verdict
from schemas.codec import (
    decode_block_segment,
    decode_log_segment,
    encode_block_segment,
    encode_log_segment,
)
from schemas.columns import ColumnBlock, from_spans, row_count, to_buffers, to_python
from schemas.segments import SegmentName
from schemas.tables import (
    BLOCKS,
    HEADER_REFS,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    Table,
    Verification,
)
from tests.ingest.expected_columns import (
    DEVCHAIN,
    ORACLES,
    TRANSACTION_ORACLE,
    Payloads,
    built_of,
    oracle_rows,
)
from tests.ingest.real_blocks import (
    busy_block,
    devchain,
    devchain_payload,
    expected_blocks,
    load_payload,
    parsed,
    parsed_receipts,
)

SOURCES = [DEVCHAIN, *[(row.chain, row.number) for row in expected_blocks()]]


def _segments(source: tuple[str, int]) -> Payloads:
    if source == DEVCHAIN:
        return [devchain_payload(number) for number in range(len(devchain().blocks()))]
    return [load_payload(*source)]


def _tables(columns: BlockColumns, logs: LogColumns | None) -> list[tuple[Table, ColumnBlock]]:
    pairs = [
        (BLOCKS, columns.blocks),
        (TRANSACTION_TABLE, columns.transactions),
        (WITHDRAWALS, columns.withdrawals),
    ]
    return pairs if logs is None else [*pairs, (LOGS, logs.logs), (HEADER_REFS, logs.headers)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source[0]}-{source[1]}")
def test_every_declared_column_holds_what_the_payload_says(source: tuple[str, int]) -> None:
    payloads = _segments(source)
    columns, logs = built_of(payloads)
    rows = oracle_rows(payloads)
    for table, block in _tables(columns, logs):
        oracle = ORACLES[table.name]
        assert list(block.columns) == [spec.name for spec in table.columns] == [*oracle]
        assert block.rows == len(rows[table.name])
        for spec in table.columns:
            column = block.columns[spec.name]
            assert row_count(column) == block.rows, spec.name
            expected = [oracle[spec.name](*row) for row in rows[table.name]]
            assert to_python(spec.kind, column) == expected, spec.name
            buffers = to_buffers(spec.kind, column)
            spans = iter([(buffer, 0, len(buffer)) for buffer in buffers])
            again = from_spans(spec.kind, block.rows, spans)
            assert to_buffers(spec.kind, again) == buffers


def test_the_devchain_shows_every_kind_of_value() -> None:
    # Else the test above would say less than its name does, where there is no chain data.
    blocks = [block for block, _ in _segments(DEVCHAIN)]
    types = {tx["type"] for block in blocks for tx in block["transactions"]}
    assert {"0x0", "0x1", "0x2"} <= types
    assert any(block.get("withdrawals") for block in blocks)
    assert any(tx["to"] is None for block in blocks for tx in block["transactions"])


def test_without_receipts_their_columns_are_null() -> None:
    payloads = [(block, None) for block, _ in _segments(DEVCHAIN)]
    columns, _ = built_of(payloads)
    rows = oracle_rows(payloads)["transactions"]
    for name, read in TRANSACTION_ORACLE.items():
        kind = TRANSACTION_TABLE.column(name).kind
        found = to_python(kind, columns.transactions.columns[name])
        assert found == [read(*row) for row in rows], name


def test_segments_survive_their_avro_messages() -> None:
    columns, logs = built_of(_segments(DEVCHAIN))
    assert logs is not None
    name = SegmentName(1337, "blocks", "history", 0, 12, b"\1" * 32, "0" * 16)
    segment = block_segment(name, 5, columns)
    again = decode_block_segment(encode_block_segment(segment))
    verdict = Verdict(Verification.receipts, ("header hash",), ("withdrawals",))
    log_name = SegmentName(1337, "logs", "history", 0, 12, b"\1" * 32, "0" * 16)
    built = log_segment(log_name, 5, logs, verdict)
    logs_again = decode_log_segment(encode_log_segment(built))
    assert (again.name, again.observed_at_ms) == (name, 5)
    assert (logs_again.level, logs_again.proven) == (Verification.receipts, ("header hash",))
    for table, before, after in (
        (BLOCKS, segment.blocks, again.blocks),
        (TRANSACTION_TABLE, segment.transactions, again.transactions),
        (WITHDRAWALS, segment.withdrawals, again.withdrawals),
        (LOGS, built.logs, logs_again.logs),
        (HEADER_REFS, built.headers, logs_again.headers),
    ):
        for spec in table.columns:
            left, right = before.columns[spec.name], after.columns[spec.name]
            assert to_buffers(spec.kind, left) == to_buffers(spec.kind, right), spec.name


def test_no_blocks_make_empty_columns() -> None:
    columns = build_block_columns([], [])
    logs = build_log_columns([], [], columns)
    for table, block in _tables(columns, logs):
        assert (block.rows, list(block.columns)) == (0, [spec.name for spec in table.columns])


def test_filtered_logs_keep_the_nodes_word_on_their_place() -> None:
    block, receipts = devchain_payload(busy_block())
    flat = [log for receipt in receipts for log in receipt["logs"]]
    some = parsed_receipts([receipts[0] | {"logs": flat[::3]}])[0].logs
    header = parsed(block | {"transactions": [tx["hash"] for tx in block["transactions"]]})
    columns = build_block_columns([header])
    built = build_filtered_log_columns([header], [some], columns)
    places = {log["logIndex"]: log["transactionIndex"] for log in flat}
    indexes: Any = built.logs.columns["transaction_index"]
    assert indexes.valid.all()
    assert indexes.values.tolist() == [int(places[log["logIndex"]], 16) for log in flat[::3]]
    assert built.headers.columns["log_count"].tolist() == [len(some)]
