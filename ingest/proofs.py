"""Columns in, the hashes and roots that they have out; whether those are right is for callers.

`ingest.verify` compares them with what a node sent, `ingest.reprove` with what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.bloom import blooms
from ingest.encode import encode_logs, encode_receipts, encode_withdrawals
from ingest.encode_headers import encode_headers
from ingest.keccak import keccak
from ingest.rlpcolumns import rows_of
from ingest.trie import ordered_root
from schemas.columns import Bytes, ColumnBlock

Ranges = list[tuple[int, int]]
"""Per block, the first row and the row after the last in another table."""


def row_ranges(blocks: ColumnBlock, table: ColumnBlock) -> Ranges:
    """Where each block's rows are in `table`; both are sorted by block number.

    Parameters
    ----------
    blocks : ColumnBlock
        Rows of ``blocks``, one a height.
    table : ColumnBlock
        Rows of another table of the same range.

    Returns
    -------
    list of (int, int)
        One range a block.
    """
    column: Any = table.columns["block_number"]
    heights: Any = blocks.columns["block_number"]
    starts = np.searchsorted(column, heights, "left").tolist()
    stops = np.searchsorted(column, heights, "right").tolist()
    return list(zip(starts, stops, strict=True))


def header_hashes(blocks: ColumnBlock) -> list[bytes | None]:
    """keccak(rlp(header)) of each block, of the header fields that this version knows.

    None where a header lacks a field that every header has.
    """
    return [None if encoded is None else keccak(encoded) for encoded in encode_headers(blocks)]


def receipt_blooms(logs: ColumnBlock, owners: npt.NDArray[np.int64], count: int) -> Bytes:
    """The bloom of each receipt, from the logs.

    Parameters
    ----------
    logs : ColumnBlock
        Rows of the table ``logs``.
    owners : int64[logs]
        Which receipt each log belongs to.
    count : int
        Number of receipts.

    Returns
    -------
    uint8[count, 256]
    """
    columns: dict[str, Any] = logs.columns
    values = rows_of(columns["address"])
    holders = [owners]
    for place in range(4):
        topic = columns[f"topic{place}"]
        if not topic.valid.any():
            break
        values += rows_of(topic.values[topic.valid])
        holders.append(owners[topic.valid])
    return blooms(values, np.concatenate(holders), count)


def block_blooms(receipts: Bytes, ranges: Ranges) -> Bytes:
    """The bloom of each block: its receipts' blooms put together."""
    out = np.zeros((len(ranges), 256), np.uint8)
    for row, (start, stop) in enumerate(ranges):
        np.bitwise_or.reduce(receipts[start:stop], axis=0, out=out[row])
    return out


def receipt_roots(
    transactions: ColumnBlock, logs: ColumnBlock, bloom: Bytes, ranges: Ranges
) -> list[bytes | None]:
    """The root of each block's receipts.

    Parameters
    ----------
    transactions : ColumnBlock
        Rows of ``transactions`` with their receipts.
    logs : ColumnBlock
        Rows of ``logs``, as many as the receipts' ``log_count`` say, in their order.
    bloom : uint8[transactions, 256]
        Each receipt's bloom.
    ranges : list of (int, int)
        Each block's rows in `transactions`.

    Returns
    -------
    list of bytes or None
        None where a receipt has neither a status nor a root.
    """
    encoded = encode_receipts(transactions, encode_logs(logs), bloom)
    return [_root(encoded[start:stop]) for start, stop in ranges]


def withdrawal_roots(withdrawals: ColumnBlock, ranges: Ranges) -> list[bytes]:
    """The root of each block's list of withdrawals."""
    encoded = encode_withdrawals(withdrawals)
    return [ordered_root(encoded[start:stop]) for start, stop in ranges]


def transaction_root(encoded: Sequence[bytes | None]) -> bytes | None:
    """The root of a block's transactions; None where one has no known encoding."""
    return _root(encoded)


def _root(encoded: Sequence[bytes | None]) -> bytes | None:
    known = [value for value in encoded if value]
    return ordered_root(known) if len(known) == len(encoded) else None
