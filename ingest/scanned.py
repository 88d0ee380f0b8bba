"""JSON of receipts in, the receipts with the columns of all their logs out: the quick reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec

from ingest.logscan import ScannedLogs, scan_logs
from ingest.places import number_of, stand_in_receipts
from ingest.wire import Block, UnreadReceipt, decode_unread_receipts


@dataclass(frozen=True, slots=True)
class ScannedReceipts:
    """The receipts of consecutive blocks, their logs as columns."""

    receipts: list[list[UnreadReceipt]]
    """Each block's receipts."""
    logs: ScannedLogs
    """All their logs, one array a receipt, each in its place."""


def scan_receipts(
    blocks: Sequence[Block], results: Sequence[bytes | msgspec.Raw]
) -> ScannedReceipts | None:
    """Read the `result` of eth_getBlockReceipts of each block.

    Parameters
    ----------
    blocks : sequence of Block
        Consecutive blocks.
    results : sequence of bytes or msgspec.Raw
        One a block.

    Returns
    -------
    ScannedReceipts or None
        None where the logs have to be read one by one (see `ingest.wire.decode_receipts`): there
        are none, they are not written regularly, one does not stand where it says, or a receipt is
        of no transaction.

    Raises
    ------
    PayloadInvalid
        If one is no JSON, or a field is missing or of another type.
    """
    receipts = [
        decode_unread_receipts(result, f"block {number_of(block.number)}") or []
        for block, result in zip(blocks, results, strict=True)
    ]
    if any(len(part) > len(b.transactions or ()) for b, part in zip(blocks, receipts, strict=True)):
        return None
    logs = scan_logs([receipt.logs for part in receipts for receipt in part])
    if logs is None or not stand_in_receipts(blocks, receipts, logs):
        return None
    counts = logs.counts.tolist()
    for receipt, count in zip(chain.from_iterable(receipts), counts, strict=True):
        receipt.found = count
    return ScannedReceipts(receipts, logs)
