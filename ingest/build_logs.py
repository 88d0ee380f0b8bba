"""Build the columns of the table ``logs`` and its header references from a segment's logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from ingest.build import BlockColumns, receipt_owners
from ingest.hexcolumns import AnyRows, InnerRows, Rows, hex_column, quantities
from ingest.logscan import TOPICS_MAX, ScannedLogs
from ingest.tablecolumns import (
    as_array,
    block_rows,
    fill_fields,
    positions,
    repeat_identity,
    table_block,
)
from ingest.verdict import Verdict
from ingest.wire import Block, Log, Receipt
from schemas.columns import Column, ColumnBlock, Nullable
from schemas.errors_verify import TopicsTooMany
from schemas.kinds import parse_kind
from schemas.segments import LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS


@dataclass(frozen=True, slots=True)
class LogColumns:
    """The columns of a segment of the stream ``logs``."""

    headers: ColumnBlock
    """Columns of ``HEADER_REFS``."""
    logs: ColumnBlock
    """Columns of the table ``logs``."""


def build_log_columns(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[Receipt]],
    columns: BlockColumns,
) -> LogColumns:
    """Build the columns of the table ``logs`` and of its header references from receipts.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, with their transactions.
    receipts : sequence of sequences of Receipt
        Each block's receipts.
    columns : BlockColumns
        What `build_block_columns` gave for the same blocks: position and hash of a log's
        transaction are taken from there.

    Returns
    -------
    LogColumns
        One row a block, one row a log.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, TopicsTooMany
        Naming the block, the field and the value.
    """
    logs = [log for part in receipts for receipt in part for log in receipt.logs]
    counts = [sum(len(receipt.logs) for receipt in part) for part in receipts]
    position = _positions_in(columns)
    if any(
        len(part) > len(block.transactions or ())
        for block, part in zip(blocks, receipts, strict=True)
    ):
        position = _positions_of(blocks, receipts)
    return _build_logs(blocks, logs, counts, columns.blocks.columns, position)


def build_scanned_log_columns(
    blocks: Sequence[Block], logs: ScannedLogs, columns: BlockColumns, *, in_receipts: bool
) -> LogColumns:
    """Build the columns of the table ``logs`` from logs that were scanned.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks.
    logs : ScannedLogs
        Their logs, which stand where they should (see ingest/places.py): one array a receipt,
        or one a block where there are no receipts.
    columns : BlockColumns
        What `build_block_columns` gave for the same blocks.
    in_receipts : bool
        Whether the logs came in receipts.

    Returns
    -------
    LogColumns
        One row a block, one row a log.
    """
    header = columns.blocks.columns
    found: dict[str, Column] = {
        "transaction_hash": logs.transaction_hash,
        "transaction_index": _never_null(logs.transaction_index.astype(np.uint32)),
        "log_index": logs.log_index.astype(np.uint32),
        "address": logs.address,
        "data": logs.data,
    }
    found |= {f"topic{place}": column for place, column in enumerate(logs.topics)}
    counts = logs.counts
    if in_receipts:
        found |= _positions_in(columns)
        per_block = header["log_count"]
        assert isinstance(per_block, Nullable)
        counts = as_array(per_block.values)
    return _log_tables(len(blocks), counts.tolist(), header, found)


def build_filtered_log_columns(
    blocks: Sequence[Block], logs: Sequence[Sequence[Log]], columns: BlockColumns
) -> LogColumns:
    """Build the columns of the table ``logs`` from eth_getLogs; see `build_log_columns`.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks; their transactions are not needed.
    logs : sequence of sequences of Log
        Each block's logs; hash and position of their transactions are the node's word.
    columns : BlockColumns
        What `build_block_columns` gave for the same blocks.

    Returns
    -------
    LogColumns
        One row a block, one row a log.
    """
    flat = list(chain.from_iterable(logs))
    counts = [len(part) for part in logs]
    rows = block_rows(blocks, counts)
    fields = {"transaction_hash": "transaction_hash", "transaction_index": "transaction_index"}
    position = fill_fields(LOGS, fields, flat, rows, "log ")
    return _build_logs(blocks, flat, counts, columns.blocks.columns, position)


def log_segment(
    name: SegmentName,
    observed_at_ms: int,
    columns: LogColumns,
    verdict: Verdict,
) -> LogSegment:
    """The segment of the stream ``logs`` that carries `columns` and the verdict on them."""
    return LogSegment(
        name,
        observed_at_ms,
        verdict.level,
        verdict.proven,
        verdict.unproven,
        columns.headers,
        columns.logs,
    )


def _positions_in(columns: BlockColumns) -> dict[str, Column]:
    """Hash and position of each log's transaction, as the transactions have them."""
    transactions = columns.transactions.columns
    per_transaction = transactions["log_count"]
    assert isinstance(per_transaction, Nullable)
    repeats = as_array(per_transaction.values)
    hashes, indexes = (
        np.repeat(as_array(transactions[name]), repeats, axis=0)
        for name in ("transaction_hash", "transaction_index")
    )
    return {"transaction_hash": hashes, "transaction_index": _never_null(indexes)}


def _positions_of(
    blocks: Sequence[Block], receipts: Sequence[Sequence[Receipt]]
) -> dict[str, Column]:
    """As `_positions_in`, where some receipts are of no transaction."""
    parts = list(chain.from_iterable(receipts))
    rows = block_rows(blocks, [len(part) for part in receipts])
    texts = [receipt.transaction_hash for receipt in parts]
    hashes = hex_column(parse_kind("bytes32"), texts, "receipt transactionHash", rows)
    owners = [
        owner
        for block, part in zip(blocks, receipts, strict=True)
        for owner in receipt_owners(block, part)
    ]
    repeats = [len(receipt.logs) for receipt in parts]
    indexes = np.repeat(np.array(owners, np.int64), repeats)
    return {
        "transaction_hash": np.repeat(as_array(hashes), repeats, axis=0),
        "transaction_index": Nullable(indexes >= 0, np.maximum(indexes, 0).astype(np.uint32)),
    }


def _never_null(values: npt.NDArray[np.uint32]) -> Nullable:
    return Nullable(np.ones(len(values), np.bool_), values)


def _build_logs(
    blocks: Sequence[Block],
    logs: list[Log],
    counts: list[int],
    header: dict[str, Column],
    position: dict[str, Column],
) -> LogColumns:
    rows = block_rows(blocks, counts)
    columns = dict(position)
    columns["log_index"] = _log_indexes(logs, counts, rows)
    columns |= fill_fields(LOGS, {"address": "address", "data": "data"}, logs, rows, "log ")
    columns |= _topic_columns([log.topics for log in logs], rows)
    return _log_tables(len(blocks), counts, header, columns)


def _log_tables(
    blocks: int, counts: list[int], header: dict[str, Column], columns: dict[str, Column]
) -> LogColumns:
    """The log's own columns with those of their blocks, and the header references."""
    columns = repeat_identity(header, counts) | columns
    names = [spec.name for spec in HEADER_REFS.columns if spec.name != "log_count"]
    references = {name: header[name] for name in names}
    references["log_count"] = np.array(counts, np.uint32)
    return LogColumns(
        table_block(HEADER_REFS, blocks, references), table_block(LOGS, sum(counts), columns)
    )


def _log_indexes(logs: list[Log], counts: list[int], rows: Rows) -> Column:
    """The column of log indexes; nearly always they are the logs' positions, literally."""
    texts = [log.log_index for log in logs]
    if texts == list(chain.from_iterable(quantities(count) for count in counts)):
        return positions(counts)
    return hex_column(LOGS.column("log_index").kind, texts, "log log_index", rows)


def _topic_columns(topics: list[list[str]], rows: AnyRows) -> dict[str, Column]:
    counts = np.fromiter(map(len, topics), np.int64, len(topics))
    if len(topics) and counts.max() > TOPICS_MAX:
        row = int(counts.argmax())
        raise TopicsTooMany(topics=int(counts[row]), **rows.place(row))
    bytes32 = parse_kind("bytes32")
    flat = hex_column(
        bytes32, list(chain.from_iterable(topics)), "log topic", InnerRows(rows, topics)
    )
    starts = np.cumsum(counts) - counts
    # The row after the last is what stands where a topic is absent.
    padded = np.concatenate([as_array(flat), np.zeros((1, 32), np.uint8)])
    columns: dict[str, Column] = {}
    for place in range(TOPICS_MAX):
        valid = counts > place
        rows_taken = np.where(valid, starts + place, len(padded) - 1)
        columns[f"topic{place}"] = Nullable(valid, padded.take(rows_taken, axis=0))
    return columns
