"""Payloads in, a coded error out where one names another place than the one it came at.

A log's block, transaction and index are the node's word: receiptsRoot does not cover them. So
they must agree with the block and with their own position. The texts are compared as they came;
only where they differ is their value looked at.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from ingest.hexcolumns import Rows, clip, quantities
from ingest.logscan import ScannedLogs
from ingest.wire import Block, Log, Receipt, ReceiptFields, Transaction
from schemas.columns import Bytes
from schemas.errors_verify import (
    LogIndexGap,
    LogMisplaced,
    LogRemoved,
    ReceiptMisplaced,
    ReceiptsCountMismatch,
    ReceiptsOfAnotherBlock,
    SystemReceipt,
    TransactionMisplaced,
)


def block_place(block: Block) -> dict[str, str]:
    """Number and hash of a block, as error data."""
    return Rows([block.number], [block.hash], [1]).place(0)


def number_of(text: str | None) -> int | None:
    """The value of a quantity; None where it is none."""
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


def check_transactions(block: Block) -> None:
    """Check that each transaction names this block and its own position.

    Raises
    ------
    TransactionMisplaced
        Naming the first that does not.
    """
    transactions = [tx for tx in block.transactions or () if isinstance(tx, Transaction)]
    indexes = [tx.transaction_index for tx in transactions]
    if indexes != quantities(len(indexes)):
        for position, text in enumerate(indexes):
            if text is not None and number_of(text) != position:
                _misplaced(block, position, "transactionIndex", text, position)
    hashes = [tx.block_hash for tx in transactions]
    if hashes.count(block.hash) != len(hashes):
        for position, text in enumerate(hashes):
            if text is not None and not _same(text, block.hash):
                _misplaced(block, position, "blockHash", text, block.hash)


def check_receipts(
    block: Block,
    receipts: Sequence[Receipt],
    *,
    strict: bool,
    system: str | None = None,
    of_block: bool = False,
) -> None:
    """Check that receipts and their logs are of this block, and stand where they say.

    Parameters
    ----------
    block : Block
        The block, with its transactions.
    receipts : sequence of Receipt
        What the node gave as the block's receipts.
    strict : bool
        False below level ``header``: some chains leave receipts out, or count positions
        otherwise. Then only blocks, hashes and rising log indexes are checked.
    system : str, optional
        Hash of a last transaction of the chain itself, which may have no receipt.
    of_block : bool
        Whether a last receipt may be of the block itself (a system receipt).

    Raises
    ------
    ReceiptsOfAnotherBlock, ReceiptsCountMismatch, ReceiptMisplaced, SystemReceipt
        A receipt is not of this block, or not of the transaction at its position.
    LogMisplaced, LogIndexGap, LogRemoved
        A log names another block or transaction, or its index is not its position.
    """
    own = check_receipts_alone(block, receipts, strict=strict, system=system, of_block=of_block)
    logs = [log for receipt in receipts for log in receipt.logs]
    counts = [len(receipt.logs) for receipt in receipts]
    expected = list(chain.from_iterable(map(repeat, own, counts)))
    given = [log.transaction_hash for log in logs]
    if given != expected:
        _first_difference(block, "transactionHash", given, expected)
    check_logs(block, logs, strict=strict)
    if strict:
        places = quantities(len(receipts))
        positions = list(chain.from_iterable(map(repeat, places, counts)))
        indexes = [log.transaction_index for log in logs]
        if indexes != positions:
            _first_difference(block, "transactionIndex", indexes, positions)


def check_receipts_alone(
    block: Block,
    receipts: Sequence[ReceiptFields],
    *,
    strict: bool,
    system: str | None = None,
    of_block: bool = False,
) -> list[str]:
    """As `check_receipts`, without the logs; returns the receipts' transaction hashes."""
    hashes = [receipt.block_hash for receipt in receipts]
    if hashes.count(block.hash) != len(hashes):
        for text in hashes:
            if not _same(text, block.hash):
                raise ReceiptsOfAnotherBlock(found=clip(text), **block_place(block))
    own = [receipt.transaction_hash for receipt in receipts]
    if strict:
        if len(own) > len(block.transactions or ()) and _same(own[-1], block.hash):
            if not of_block:
                raise SystemReceipt(**block_place(block))
            _check_order(block, receipts[:-1], own[:-1], system)
        else:
            _check_order(block, receipts, own, system)
    return own


def stand_in_receipts(
    blocks: Sequence[Block], receipts: Sequence[Sequence[ReceiptFields]], logs: ScannedLogs
) -> bool:
    """Whether scanned logs are of their blocks and transactions, and stand where they say.

    What is False here may still pass `check_receipts`, which knows other ways to write the same
    and says what is wrong.

    Parameters
    ----------
    blocks : sequence of Block
        Consecutive blocks.
    receipts : sequence of sequences of ReceiptFields
        Each block's receipts; their own places are not looked at.
    logs : ScannedLogs
        One array a receipt.
    """
    sizes = [len(part) for part in receipts]
    ends = np.cumsum([0, *logs.counts])[np.cumsum([0, *sizes])]
    per_block = np.diff(ends)
    hashes = [receipt.transaction_hash for part in receipts for receipt in part]
    positions = np.concatenate([np.arange(size) for size in sizes])
    firsts = np.repeat(ends[:-1], per_block)
    return (
        _of_blocks(blocks, per_block, logs)
        and _are_hashes(logs.transaction_hash, hashes, logs.counts)
        and np.array_equal(logs.transaction_index, np.repeat(positions, logs.counts))
        and np.array_equal(logs.log_index, np.arange(logs.count) - firsts)
    )


def group_scanned(blocks: Sequence[Block], logs: ScannedLogs) -> ScannedLogs | None:
    """The scanned logs of a range as one array a block.

    Parameters
    ----------
    blocks : sequence of Block
        The range's headers.
    logs : ScannedLogs
        What eth_getLogs gave for the range.

    Returns
    -------
    ScannedLogs or None
        None where the logs are not sorted by their blocks, or one is of another block: then
        `ingest.verify_logs.group_logs` says more.
    """
    first = number_of(blocks[0].number)
    if first is None:
        return None
    owners = logs.block_number - first
    if int(owners[0]) < 0 or int(owners[-1]) >= len(blocks) or (np.diff(owners) < 0).any():
        return None
    per_block = np.bincount(owners, minlength=len(blocks))
    return replace(logs, counts=per_block) if _of_blocks(blocks, per_block, logs) else None


def _of_blocks(
    blocks: Sequence[Block], per_block: npt.NDArray[np.int64], logs: ScannedLogs
) -> bool:
    """Whether logs, so many a block, name their block by hash and number."""
    numbers = [number_of(block.number) for block in blocks]
    if None in numbers:
        return False
    named = np.array_equal(logs.block_number, np.repeat(np.array(numbers), per_block))
    return named and _are_hashes(logs.block_hash, [block.hash for block in blocks], per_block)


def _are_hashes(rows: Bytes, hashes: list[str], counts: npt.NDArray[np.int64]) -> bool:
    """Whether rows are the values of `hashes`, each as often as `counts` says."""
    if set(map(len, hashes)) != {66}:
        return False
    try:
        decoded = unhexlify("".join([text[2:] for text in hashes]))
    except ValueError:
        return False
    expected = np.frombuffer(decoded, "V32").repeat(counts)
    return expected.tobytes() == rows.tobytes()


def check_log_blocks(block: Block, logs: Sequence[Log]) -> None:
    """Check that logs name this block, and that none is removed.

    Parameters
    ----------
    block : Block
        The block.
    logs : sequence of Log
        Its logs.

    Raises
    ------
    LogMisplaced, LogRemoved
        Naming the first log at fault.
    """
    count = len(logs)
    hashes = [log.block_hash for log in logs]
    if hashes.count(block.hash) != count:
        _first_difference(block, "blockHash", hashes, [block.hash] * count)
    numbers = [log.block_number for log in logs]
    if numbers.count(block.number) != count:
        _first_difference(block, "blockNumber", numbers, [block.number] * count)
    removed = [log.removed for log in logs]
    if True in removed:
        raise LogRemoved(position=removed.index(True), **block_place(block))


def check_logs(block: Block, logs: Sequence[Log], *, strict: bool) -> None:
    """Check that logs name this block, and that their indexes are 0 … n - 1.

    Parameters
    ----------
    block : Block
        The block.
    logs : sequence of Log
        Its logs, in order.
    strict : bool
        False where the chain counts otherwise: then indexes must only rise.

    Raises
    ------
    LogMisplaced, LogIndexGap, LogRemoved
        Naming the first log at fault.
    """
    check_log_blocks(block, logs)
    indexes = [log.log_index for log in logs]
    if indexes == quantities(len(logs)):
        return
    before = -1
    for position, text in enumerate(indexes):
        number = number_of(text)
        if number is None or number <= before or (strict and number != position):
            wanted = position if strict else f"above {before}"
            raise LogIndexGap(
                position=position, found=clip(text), expected=wanted, **block_place(block)
            )
        before = number


def _check_order(
    block: Block, receipts: Sequence[ReceiptFields], own: list[str], system: str | None
) -> None:
    transactions = block.transactions or []
    hashes = [tx.hash if isinstance(tx, Transaction) else tx for tx in transactions]
    if len(receipts) == len(hashes) - 1 and hashes[-1].lower() == system:
        transactions, hashes = transactions[:-1], hashes[:-1]
    if len(receipts) != len(transactions):
        raise ReceiptsCountMismatch(
            receipts=len(receipts), transactions=len(transactions), **block_place(block)
        )
    if own != hashes:
        _first_misplaced(block, "transactionHash", own, hashes)
    indexes = [receipt.transaction_index for receipt in receipts]
    if indexes != (wanted := quantities(len(indexes))):
        _first_misplaced(block, "transactionIndex", indexes, wanted)
    numbers = [receipt.block_number for receipt in receipts]
    if numbers.count(block.number) != len(numbers):
        _first_misplaced(block, "blockNumber", numbers, [block.number] * len(numbers))
    sent = [tx for tx in transactions if isinstance(tx, Transaction)]
    if len(sent) < len(receipts):
        return
    for field, told, known in (
        ("type", [receipt.type for receipt in receipts], [tx.type for tx in sent]),
        ("from", [receipt.from_address for receipt in receipts], [tx.from_address for tx in sent]),
        ("to", [receipt.to for receipt in receipts], [tx.to for tx in sent]),
    ):
        if told != known:
            # A field that either leaves out says nothing.
            pairs = zip(told, known, strict=True)
            given = [(a or b or "", b or a or "") for a, b in pairs]
            _first_misplaced(block, field, [a for a, _ in given], [b for _, b in given])


def _same(found: str, expected: str) -> bool:
    """Whether two hex texts mean the same: letters of either case, and zeros before numbers."""
    if found.lower() == expected.lower():
        return True
    is_quantity = len(found) < 20 and len(expected) < 20
    return is_quantity and number_of(found) is not None and number_of(found) == number_of(expected)


def _first_difference(
    block: Block, field: str, found: Sequence[str], expected: Sequence[str]
) -> None:
    for position, (text, wanted) in enumerate(zip(found, expected, strict=True)):
        if not _same(text, wanted):
            raise LogMisplaced(
                position=position,
                field=field,
                found=clip(text),
                expected=clip(wanted),
                **block_place(block),
            )


def _first_misplaced(
    block: Block, field: str, found: Sequence[str], expected: Sequence[str]
) -> None:
    for index, (text, wanted) in enumerate(zip(found, expected, strict=True)):
        if not _same(text, wanted):
            raise ReceiptMisplaced(
                index=index,
                field=field,
                found=clip(text),
                expected=clip(wanted),
                **block_place(block),
            )


def _misplaced(block: Block, index: int, field: str, found: str, expected: object) -> None:
    raise TransactionMisplaced(
        index=index, field=field, found=clip(found), expected=expected, **block_place(block)
    )
