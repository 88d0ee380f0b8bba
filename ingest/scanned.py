"""JSON of blocks and receipts in, transactions, receipts and logs as columns out, if regular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ingest.objectlayout import Irregular
from ingest.places import stand_in_blocks
from ingest.receiptscan import ScannedReceipts, scan_receipts
from ingest.transactionscan import ScannedTransactions, scan_transactions
from ingest.wire import UnreadBlock


@dataclass(frozen=True, slots=True)
class ScannedBodies:
    """The transactions of consecutive blocks with their receipts, each in its place."""

    transactions: ScannedTransactions
    """The transactions."""
    receipts: ScannedReceipts
    """One receipt a transaction, with the logs."""


def scan_bodies(
    blocks: Sequence[UnreadBlock], results: Sequence[bytes | msgspec.Raw]
) -> ScannedBodies | None:
    """Read the transactions of blocks and the `result` of eth_getBlockReceipts of each.

    Parameters
    ----------
    blocks : sequence of UnreadBlock
        Consecutive blocks.
    results : sequence of bytes or msgspec.Raw
        One a block.

    Returns
    -------
    ScannedBodies or None
        None where they have to be read one by one (see `ingest.wire`): there are none, they are
        not written regularly, or one does not stand where it says.
    """
    bodies = [block.transactions or [] for block in blocks]
    try:
        receipts = scan_receipts(results)
        if receipts.counts != list(map(len, bodies)):
            return None
        transactions = scan_transactions(blocks, bodies)
    except Irregular:
        return None
    if not stand_in_blocks(blocks, transactions, receipts):
        return None
    return ScannedBodies(transactions, receipts)
