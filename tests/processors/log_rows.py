"""Logs as plain dictionaries in, LogSegments out; decoded tables as dictionaries back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.columns import ColumnBlock, from_python, to_python
from schemas.segments import EventSegment, LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Table, Verification, empty_block

ADDRESS = bytes.fromhex("c02aaa39b223fe8d0a0e5c4f27ead9083c756cc2")


def log_row(
    topics: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    log_index: int = 0,
    address: bytes = ADDRESS,
    block_number: int = 7,
) -> dict[str, Any]:
    """A row of the table logs."""
    padded = [*topics, None, None, None, None][:4]
    return {
        "block_number": block_number,
        "block_hash": block_number.to_bytes(32, "big"),
        "block_time": 1_600_000_000 + block_number,
        "transaction_hash": log_index.to_bytes(32, "big"),
        "transaction_index": log_index // 3,
        "log_index": log_index,
        "address": address,
        **{f"topic{i}": topic for i, topic in enumerate(padded)},
        "data": data,
    }


def log_segment(rows: Sequence[dict[str, Any]]) -> LogSegment:
    """A segment of these logs."""
    columns = {
        spec.name: from_python(spec.kind, [row[spec.name] for row in rows]) for spec in LOGS.columns
    }
    return LogSegment(
        SegmentName(1, "logs", "history", 0, 9, bytes(32), "0" * 16),
        1_700_000_000_000,
        Verification.off,
        (),
        (),
        empty_block(HEADER_REFS),
        ColumnBlock("logs", len(rows), columns),
    )


def table_rows(segment: EventSegment, tables: Sequence[Table], name: str) -> list[dict[str, Any]]:
    """The rows of a decoded table, strings as text."""
    table = next(table for table in tables if table.name == name)
    block = next(block for block in segment.tables if block.table == name)
    if not block.rows:
        assert block.columns == {}
        return []
    assert list(block.columns) == [spec.name for spec in table.columns]
    columns = {}
    for spec in table.columns:
        values = to_python(spec.kind, block.columns[spec.name])
        assert len(values) == block.rows
        columns[spec.name] = [v.decode() for v in values] if spec.kind.text == "string" else values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def all_rows(segment: EventSegment, tables: Sequence[Table]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table that has any."""
    return {
        block.table: table_rows(segment, tables, block.table)
        for block in segment.tables
        if block.rows
    }


def read_logs(path: Path) -> list[dict[str, Any]]:
    """The JSON-RPC logs of a block's receipts, in order."""
    block = json.loads(gzip.decompress(path.read_bytes()))
    return [log for receipt in block["receipts"] or [] for log in receipt["logs"]]


def from_rpc(log: dict[str, Any]) -> dict[str, Any]:
    """A row of the table logs, of a JSON-RPC log."""
    topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
    row = log_row(
        topics,
        bytes.fromhex(log["data"][2:]),
        log_index=int(log["logIndex"], 16),
        address=bytes.fromhex(log["address"][2:]),
        block_number=int(log["blockNumber"], 16),
    )
    row["block_hash"] = bytes.fromhex(log["blockHash"][2:])
    row["transaction_hash"] = bytes.fromhex(log["transactionHash"][2:])
    row["transaction_index"] = int(log["transactionIndex"], 16)
    return row
