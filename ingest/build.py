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
from ingest.tablecolumns import (
    block_rows,
    drop_unreadable,
    fill_fields,
    nullable_counts,
    positions,
    repeat_identity,
    table_block,
)
from ingest.wire import AnyReceipt, Block, Transaction, Withdrawal
from schemas.columns import Column, ColumnBlock, Ragged
from schemas.errors_verify import (
    FieldMissing,
    HexMalformed,
    QuantityOutOfRange,
    ReceiptsCountMismatch,
)
from schemas.segments import BlockSegment, SegmentName
from schemas.tables import (
    BLOCKS,
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
    "block_access_list_hash": "block_access_list_hash",
    "slot_number": "slot_number",
    "size_bytes": "size",
}
"""Columns of ``blocks`` that hold one hex field of the block."""

_HEADER_FIELDS = {name: field for name, field in _BLOCK_FIELDS.items() if name != "size_bytes"}
"""Those of them that are of the header: `extra` keeps what their columns cannot hold."""

_WITHDRAWAL_FIELDS = {
    "withdrawal_index": "index",
    "validator_index": "validator_index",
    "address": "address",
    "amount_gwei": "amount",
}
"""Columns of ``withdrawals`` that hold one hex field of the withdrawal."""

_NO_WITHDRAWALS = empty_block(WITHDRAWALS)


@dataclass(frozen=True, slots=True)
class BlockColumns:
    """The columns of a segment of the stream ``blocks``."""

    blocks: ColumnBlock
    """Columns of the table ``blocks``."""
    transactions: ColumnBlock
    """Columns of the table ``transactions``; no rows where blocks came without transactions."""
    withdrawals: ColumnBlock
    """Columns of the table ``withdrawals``."""


def build_header_columns(blocks: Sequence[Block]) -> dict[str, Column]:
    """Build the columns of ``blocks`` that the blocks' headers fill.

    A field whose text does not fit its column is set to None, in `blocks` and in the column; what
    that means is the verification's question.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, in order.

    Returns
    -------
    dict
        Columns by name: all but the counts. ``verification`` is ``off`` and ``extra`` empty until
        the verification fills them.

    Raises
    ------
    HexMalformed, QuantityOutOfRange
        A field without which no row can be stored, naming the block, the field and the value.
    """
    rows = block_rows(blocks, [1] * len(blocks))
    try:
        columns = fill_fields(BLOCKS, _BLOCK_FIELDS, blocks, rows, "")
    except (HexMalformed, QuantityOutOfRange):
        for block in blocks:
            drop_unreadable(BLOCKS, _HEADER_FIELDS, block)
        columns = fill_fields(BLOCKS, _BLOCK_FIELDS, blocks, rows, "")
    columns["extra"] = Ragged(np.zeros(len(blocks) + 1, np.int64), np.empty(0, np.uint8))
    columns["verification"] = np.full(len(blocks), int(Verification.off), np.int8)
    return columns


def build_block_columns(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[AnyReceipt]] | None = None,
    header: dict[str, Column] | None = None,
    *,
    lenient: bool = False,
) -> BlockColumns:
    """Build the columns of the tables ``blocks``, ``transactions`` and ``withdrawals``.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, in order.
    receipts : sequence of sequences of AnyReceipt, optional
        Each block's receipts, in the order of its transactions; without them the columns that
        receipts fill are null.
    header : dict, optional
        What `build_header_columns` gave for the same blocks, where that was asked before.
    lenient : bool
        Whether what a column cannot hold is null, as far as it may be, and kept in ``extra``.

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
    aligned: list[AnyReceipt | None] | None = None
    if receipts is not None:
        parts = zip(blocks, body, receipts, strict=True)
        aligned = list(chain.from_iterable(_align(*part, lenient=lenient) for part in parts))
    logs = None if receipts is None else [sum(r.count_logs() for r in part) for part in receipts]
    counts = [None if block.transactions is None else len(block.transactions) for block in blocks]
    columns = header | {
        "transaction_count": nullable_counts(counts),
        "log_count": nullable_counts([None] * len(blocks) if logs is None else logs),
    }
    return BlockColumns(
        table_block(BLOCKS, len(blocks), columns),
        build_transactions(blocks, body, aligned, header, lenient=lenient),
        _build_withdrawals(blocks, header),
    )


def block_segment(name: SegmentName, observed_at_ms: int, columns: BlockColumns) -> BlockSegment:
    """The segment of the stream ``blocks`` that carries `columns`."""
    return BlockSegment(
        name, observed_at_ms, columns.blocks, columns.transactions, columns.withdrawals
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


def _full_transactions(block: Block) -> list[Transaction]:
    """The block's transactions; none where it came without them or with their hashes only."""
    return [tx for tx in block.transactions or () if isinstance(tx, Transaction)]


def receipt_owners(block: Block, receipts: Sequence[AnyReceipt]) -> list[int]:
    """The position of each receipt's transaction; -1 for a system receipt, which is of none.

    Parameters
    ----------
    block : Block
        The block with its transactions.
    receipts : sequence of AnyReceipt
        Its receipts, in the order of the transactions.
    """
    hashes = [tx.hash if isinstance(tx, Transaction) else tx for tx in block.transactions or ()]
    places = {text: place for place, text in enumerate(hashes)}
    return [places.get(receipt.transaction_hash, -1) for receipt in receipts]


def _align(
    block: Block,
    transactions: list[Transaction],
    receipts: Sequence[AnyReceipt],
    *,
    lenient: bool,
) -> list[AnyReceipt | None]:
    """Each transaction's receipt. Some chains give none for some (Ethermint's failed ones).

    A receipt more whose transaction is the block itself is a system receipt, and so is, where
    `lenient`, one of any transaction that the block does not have.
    """
    place = block_rows([block], [1]).place
    if block.transactions is None or len(transactions) != len(block.transactions):
        raise FieldMissing(field="transactions", **place(0))
    if len(receipts) == len(transactions):
        return list(receipts)
    own = list(receipts)
    if len(receipts) > len(transactions):
        owners = receipt_owners(block, receipts)
        own = [
            receipt
            for receipt, owner in zip(receipts, owners, strict=True)
            if owner >= 0 or not (lenient or receipt.transaction_hash == block.hash)
        ]
    aligned: list[AnyReceipt | None] = []
    used = 0
    for transaction in transactions:
        is_own = used < len(own) and own[used].transaction_hash == transaction.hash
        aligned.append(own[used] if is_own else None)
        used += is_own
    if used < len(own):
        raise ReceiptsCountMismatch(
            receipts=len(receipts), transactions=len(transactions), **place(0)
        )
    return aligned
