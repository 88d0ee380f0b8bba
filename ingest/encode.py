"""Columns of the core tables in, the consensus encodings that hashes and roots cover out.

Encoding the columns, not the payloads they came from, proves exactly what is stored; the audit
encodes what it reads back from the database with the same functions.

Source: Ethereum Yellow Paper 4.3, EIP-1559, 2718, 2930, 4844, 4895, 7702; op-geth for deposits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.rlp import (
    EMPTY_BYTES,
    bytes_prefix,
    encode_list,
    frame_lists,
    list_prefix,
)
from ingest.rlpcolumns import (
    ADDRESS,
    WORD,
    byte_parts,
    fixed_parts,
    optional_parts,
    rows_of,
    uint_parts,
    word_parts,
)
from ingest.wire import STANDARD_TYPES
from schemas.columns import Bytes, ColumnBlock, Nullable

BLOOM = bytes_prefix(256)
"""RLP prefix of a bloom."""
_TOPICS_PREFIX = tuple(list_prefix(33 * count) for count in range(5))


def encode_withdrawals(withdrawals: ColumnBlock) -> list[bytes]:
    """The RLP of each withdrawal (EIP-4895).

    Parameters
    ----------
    withdrawals : ColumnBlock
        Rows of the table ``withdrawals``.

    Returns
    -------
    list of bytes
    """
    column: dict[str, Any] = withdrawals.columns
    parts = zip(
        uint_parts(column["withdrawal_index"]),
        uint_parts(column["validator_index"]),
        fixed_parts(column["address"], ADDRESS),
        uint_parts(column["amount_gwei"]),
        strict=True,
    )
    return [encode_list(part) for part in parts]


def encode_logs(logs: ColumnBlock) -> list[bytes]:
    """The RLP of each log: address, topics and data.

    Parameters
    ----------
    logs : ColumnBlock
        Rows of the table ``logs``.

    Returns
    -------
    list of bytes
    """
    column: dict[str, Any] = logs.columns
    topics = [column[f"topic{place}"] for place in range(4)]
    counts = topic_counts(logs)
    heads = [b""] * logs.rows
    for count in range(5):
        index = np.flatnonzero(counts == count)
        if len(index):
            framed = rows_of(_log_heads(column["address"], topics[:count], index))
            for row, head in zip(index.tolist(), framed, strict=True):
                heads[row] = head
    parts = zip(heads, byte_parts(column["data"]), strict=True)
    return frame_lists([head + data for head, data in parts])


def topic_counts(logs: ColumnBlock) -> npt.NDArray[np.int64]:
    """How many topics each log has."""
    columns = [logs.columns[f"topic{place}"] for place in range(4)]
    counts = np.zeros(logs.rows, np.int64)
    for column in columns:
        assert isinstance(column, Nullable)
        counts += column.valid
    return counts


def _log_heads(address: Bytes, topics: list[Any], index: npt.NDArray[np.int64]) -> Bytes:
    """Address and topics of the logs of `index`, which have all as many topics, as RLP."""
    prefix = np.frombuffer(_TOPICS_PREFIX[len(topics)], np.uint8)
    at = 21 + len(prefix)
    framed = np.empty((len(index), at + 33 * len(topics)), np.uint8)
    framed[:, 0] = ADDRESS[0]
    framed[:, 1:21] = address[index]
    framed[:, 21:at] = prefix
    for topic in topics:
        framed[:, at] = WORD[0]
        framed[:, at + 1 : at + 33] = topic.values[index]
        at += 33
    return framed


def encode_receipts(transactions: ColumnBlock, logs: Sequence[bytes], blooms: Bytes) -> list[bytes]:
    """The consensus encoding of each receipt, whose ordered root is receiptsRoot.

    Parameters
    ----------
    transactions : ColumnBlock
        Rows of the table ``transactions``, each with its receipt.
    logs : sequence of bytes
        The RLP of all their logs, in order.
    blooms : uint8[n, 256]
        Each receipt's bloom.

    Returns
    -------
    list of bytes
        Type byte and RLP (EIP-2718). A receipt without status and root has no encoding: empty.
    """
    column: dict[str, Any] = transactions.columns
    outcomes = optional_parts(column["post_state_root"], word_parts)
    states = optional_parts(column["status"], uint_parts)
    gas = uint_parts(column["cumulative_gas_used"].values)
    bloom_parts = fixed_parts(blooms, BLOOM)
    kinds = column["type"].tolist()
    deposits = _deposit_tails(column) if column["deposit_receipt_version"].valid.any() else None
    ends = np.cumsum(column["log_count"].values, dtype=np.int64).tolist()
    encoded, start = [], 0
    for row, (kind, end) in enumerate(zip(kinds, ends, strict=True)):
        entries = b"".join(logs[start:end])
        start = end
        outcome = outcomes[row] or states[row]
        if outcome is None:
            encoded.append(b"")
            continue
        body = outcome + gas[row] + bloom_parts[row] + list_prefix(len(entries)) + entries
        if deposits is not None and kind not in STANDARD_TYPES:
            body += deposits[row]
        payload = list_prefix(len(body)) + body
        encoded.append(bytes((kind,)) + payload if kind else payload)
    return encoded


def _deposit_tails(column: dict[str, Any]) -> list[bytes]:
    """Nonce and version of deposit receipts, which are hashed since Canyon only."""
    nonces = optional_parts(column["deposit_nonce"], uint_parts)
    versions = optional_parts(column["deposit_receipt_version"], uint_parts)
    return [
        b"" if version is None else (nonce or EMPTY_BYTES) + version
        for nonce, version in zip(nonces, versions, strict=True)
    ]
