"""Find the logs of a segment that its headers do not cover, such as Polygon's state syncs.

Source: bor, `core/types/bor_receipt.go` and `core/bor_tx.go` for the hash of the transaction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.keccak import keccak
from ingest.rlpcolumns import rows_of
from schemas.chains import SystemLogs
from schemas.columns import ColumnBlock


def system_transaction_hash(rule: SystemLogs, number: int, block_hash: bytes) -> bytes | None:
    """The hash of a block's transaction that no root covers; None on chains without them."""
    if not rule.transaction_prefix:
        return None
    return keccak(rule.transaction_prefix + number.to_bytes(8, "big") + block_hash)


def find_system_logs(
    rule: SystemLogs, blocks: ColumnBlock, logs: ColumnBlock, owners: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which logs are under neither the header's logsBloom nor its receiptsRoot.

    Parameters
    ----------
    rule : SystemLogs
        The chain's.
    blocks : ColumnBlock
        Rows of ``blocks``.
    logs : ColumnBlock
        Rows of ``logs``.
    owners : int64[logs]
        The row of each log's block.

    Returns
    -------
    bool[logs]
    """
    columns: dict[str, Any] = logs.columns
    found = np.zeros(logs.rows, np.bool_)
    if rule.addresses and logs.rows:
        own = np.frombuffer(b"".join(sorted(rule.addresses)), "V20")
        found |= np.isin(_as_rows(columns["address"]), own)
    if rule.transaction_prefix and logs.rows:
        header: dict[str, Any] = blocks.columns
        pairs = zip(header["block_number"].tolist(), rows_of(header["block_hash"]), strict=True)
        hashes = [system_transaction_hash(rule, *pair) or b"" for pair in pairs]
        expected = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)[owners]
        found |= np.all(columns["transaction_hash"] == expected, axis=1)
    return found


def _as_rows(column: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """A fixed column as one value a row."""
    return np.ascontiguousarray(column).view(f"V{column.shape[1]}").reshape(len(column))
