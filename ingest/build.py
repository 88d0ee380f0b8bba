"""Parsed blocks and receipts of a segment in, the columns of the core tables out.

Every declared column is filled for the whole segment at once. Nothing is proven here; what is
built is what `ingest.verify` proves afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ingest.build_transactions import build_transactions
from ingest.hexcolumns import AnyRows, InnerRows, Rows, hex_column, quantities
from ingest.tablecolumns import (
    as_array,
    block_rows,
    fill_fields,
    nullable_counts,
    positions,
    repeat_identity,
    table_block,
)
from ingest.verdict import Verdict
from ingest.wire import Block, Log, Receipt, Transaction, Withdrawal
from schemas.columns import Column, ColumnBlock, Nullable, Ragged
from schemas.errors_verify import FieldMissing, ReceiptsCountMismatch, TopicsTooMany
from schemas.kinds import parse_kind
from schemas.segments import BlockSegment, LogSegment, SegmentName
from schemas.tables import (
    BLOCKS,
    HEADER_REFS,
    LOGS,
    WITHDRAWALS,
    Verification,
    empty_block,
)

_BLOCK_FIELDS = {
    "block_number": "number",
    "block_hash": "hash",
    "block_time": "timestamp",
    "parent_hash": "parent_hash",
    "ommers_hash": "sha3_uncles",
    "miner": "miner",
    "state_root": "state_root",
    "transactions_root": "transactions_root",
    "receipts_root": "receipts_root",
    "logs_bloom": "logs_bloom",
    "difficulty": "difficulty",
    "gas_limit": "gas_limit",
    "gas_used": "gas_used",
    "extra_data": "extra_data",
    "mix_hash": "mix_hash",
    "nonce": "nonce",
    "base_fee_per_gas_wei": "base_fee_per_gas",
    "withdrawals_root": "withdrawals_root",
    "blob_gas_used": "blob_gas_used",
    "excess_blob_gas": "excess_blob_gas",
    "parent_beacon_block_root": "parent_beacon_block_root",
    "requests_hash": "requests_hash",
    "size_bytes": "size",
}
"""Columns of ``blocks`` that hold one hex field of the block."""

_WITHDRAWAL_FIELDS = {
    "withdrawal_index": "index",
    "validator_index": "validator_index",
    "address": "address",
    "amount_gwei": "amount",
}
"""Columns of ``withdrawals`` that hold one hex field of the withdrawal."""

_NO_WITHDRAWALS = empty_block(WITHDRAWALS)
_TOPICS_MAX = 4


@dataclass(frozen=True, slots=True)
class BlockColumns:
    """The columns of a segment of the stream ``blocks``."""

    blocks: ColumnBlock
    """Columns of the table ``blocks``."""
    transactions: ColumnBlock
    """Columns of the table ``transactions``; no rows where blocks came without transactions."""
    withdrawals: ColumnBlock
    """Columns of the table ``withdrawals``."""


@dataclass(frozen=True, slots=True)
class LogColumns:
    """The columns of a segment of the stream ``logs``."""

    headers: ColumnBlock
    """Columns of ``HEADER_REFS``."""
    logs: ColumnBlock
    """Columns of the table ``logs``."""


def build_header_columns(blocks: Sequence[Block]) -> dict[str, Column]:
    """Build the columns of ``blocks`` that the blocks' headers fill.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, in order.

    Returns
    -------
    dict
        Columns by name: all but the counts. ``verification`` is ``off`` and ``unknown_fields``
        empty until a verification knows better.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing
        Naming the block, the field and the value.
    """
    columns = fill_fields(BLOCKS, _BLOCK_FIELDS, blocks, block_rows(blocks, [1] * len(blocks)), "")
    columns["unknown_fields"] = Ragged(np.zeros(len(blocks) + 1, np.int64), np.empty(0, np.uint8))
    columns["verification"] = np.full(len(blocks), int(Verification.off), np.int8)
    return columns


def build_block_columns(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[Receipt]] | None = None,
    header: dict[str, Column] | None = None,
) -> BlockColumns:
    """Build the columns of the tables ``blocks``, ``transactions`` and ``withdrawals``.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, in order.
    receipts : sequence of sequences of Receipt, optional
        Each block's receipts, in the order of its transactions; without them the columns that
        receipts fill are null.
    header : dict, optional
        What `build_header_columns` gave for the same blocks, where that was asked before.

    Returns
    -------
    BlockColumns
        One row a block, a transaction, a withdrawal.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing
        Naming the block, the field and the value.
    ReceiptsCountMismatch
        If there are receipts that belong to no transaction of their block. A transaction without
        a receipt has nulls; whether that may be is the verification's question.
    """
    header = build_header_columns(blocks) if header is None else header
    body = [_full_transactions(block) for block in blocks]
    aligned: list[Receipt | None] | None = None
    if receipts is not None:
        parts = zip(blocks, body, receipts, strict=True)
        aligned = list(chain.from_iterable(_align(*part) for part in parts))
    logs = None if receipts is None else [sum(len(r.logs) for r in part) for part in receipts]
    counts = [None if block.transactions is None else len(block.transactions) for block in blocks]
    columns = header | {
        "transaction_count": nullable_counts(counts),
        "log_count": nullable_counts([None] * len(blocks) if logs is None else logs),
    }
    return BlockColumns(
        table_block(BLOCKS, len(blocks), columns),
        build_transactions(blocks, body, aligned, header),
        _build_withdrawals(blocks, header),
    )


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
    transactions = columns.transactions.columns
    per_transaction = transactions["log_count"]
    assert isinstance(per_transaction, Nullable)
    repeats = as_array(per_transaction.values)
    position: dict[str, Column] = {
        name: np.repeat(as_array(transactions[name]), repeats, axis=0)
        for name in ("transaction_hash", "transaction_index")
    }
    return _build_logs(blocks, logs, counts, columns.blocks.columns, position)


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


def block_segment(name: SegmentName, observed_at_ms: int, columns: BlockColumns) -> BlockSegment:
    """The segment of the stream ``blocks`` that carries `columns`."""
    return BlockSegment(
        name, observed_at_ms, columns.blocks, columns.transactions, columns.withdrawals
    )


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


def _build_withdrawals(blocks: Sequence[Block], header: dict[str, Column]) -> ColumnBlock:
    lists = [block.withdrawals or [] for block in blocks]
    if not any(lists):
        return ColumnBlock(WITHDRAWALS.name, 0, dict(_NO_WITHDRAWALS.columns))
    flat: list[Withdrawal] = list(chain.from_iterable(lists))
    counts = [len(part) for part in lists]
    columns = repeat_identity(header, counts)
    columns["position"] = positions(counts)
    rows = block_rows(blocks, counts)
    columns |= fill_fields(WITHDRAWALS, _WITHDRAWAL_FIELDS, flat, rows, "withdrawal ")
    return table_block(WITHDRAWALS, len(flat), columns)


def _build_logs(
    blocks: Sequence[Block],
    logs: list[Log],
    counts: list[int],
    header: dict[str, Column],
    position: dict[str, Column],
) -> LogColumns:
    rows = block_rows(blocks, counts)
    columns = repeat_identity(header, counts) | position
    columns["log_index"] = _log_indexes(logs, counts, rows)
    columns |= fill_fields(LOGS, {"address": "address", "data": "data"}, logs, rows, "log ")
    columns |= _topic_columns([log.topics for log in logs], rows)
    names = [spec.name for spec in HEADER_REFS.columns if spec.name != "log_count"]
    references = {name: header[name] for name in names}
    references["log_count"] = np.array(counts, np.uint32)
    return LogColumns(
        table_block(HEADER_REFS, len(blocks), references), table_block(LOGS, len(logs), columns)
    )


def _log_indexes(logs: list[Log], counts: list[int], rows: Rows) -> Column:
    """The column of log indexes; nearly always they are the logs' positions, literally."""
    texts = [log.log_index for log in logs]
    if texts == list(chain.from_iterable(quantities(count) for count in counts)):
        return positions(counts)
    return hex_column(LOGS.column("log_index").kind, texts, "log log_index", rows)


def _topic_columns(topics: list[list[str]], rows: AnyRows) -> dict[str, Column]:
    counts = np.fromiter(map(len, topics), np.int64, len(topics))
    if len(topics) and counts.max() > _TOPICS_MAX:
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
    for place in range(_TOPICS_MAX):
        valid = counts > place
        rows_taken = np.where(valid, starts + place, len(padded) - 1)
        columns[f"topic{place}"] = Nullable(valid, padded.take(rows_taken, axis=0))
    return columns


def _full_transactions(block: Block) -> list[Transaction]:
    """The block's transactions; none where it came without them or with their hashes only."""
    return [tx for tx in block.transactions or () if isinstance(tx, Transaction)]


def _align(
    block: Block, transactions: list[Transaction], receipts: Sequence[Receipt]
) -> list[Receipt | None]:
    """Each transaction's receipt. Some chains give none for some (Ethermint's failed ones)."""
    place = block_rows([block], [1]).place
    if block.transactions is None or len(transactions) != len(block.transactions):
        raise FieldMissing(field="transactions", **place(0))
    if len(receipts) == len(transactions):
        return list(receipts)
    aligned: list[Receipt | None] = []
    used = 0
    for transaction in transactions:
        own = used < len(receipts) and receipts[used].transaction_hash == transaction.hash
        aligned.append(receipts[used] if own else None)
        used += own
    if used < len(receipts):
        raise ReceiptsCountMismatch(
            receipts=len(receipts), transactions=len(transactions), **place(0)
        )
    return aligned
