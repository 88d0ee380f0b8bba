"""Prove the receipts, logs and gas of a segment against the roots of its headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ingest.build import BlockColumns
from ingest.build_logs import LogColumns
from ingest.encode_transactions import unknown_types
from ingest.hexcolumns import hex_column
from ingest.places import block_place
from ingest.proofs import (
    Ranges,
    block_blooms,
    receipt_blooms,
    receipt_roots,
    row_ranges,
)
from ingest.rlpcolumns import rows_of
from ingest.tablecolumns import as_array, block_rows
from ingest.wire import Block, ReceiptFields
from schemas.columns import Bytes, ColumnBlock, Nullable
from schemas.errors_verify import (
    BloomMismatch,
    FieldMissing,
    GasMismatch,
    ReceiptsNotProvable,
    ReceiptsRootMismatch,
)
from schemas.kinds import parse_kind


def prove_receipts(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[ReceiptFields]],
    columns: BlockColumns,
    logs: LogColumns,
) -> None:
    """Prove receipts, their logs and blooms, and the gas used.

    Parameters
    ----------
    blocks : sequence of Block
        Consecutive blocks.
    receipts : sequence of sequences of ReceiptFields
        Each block's receipts, one a transaction; only their blooms are read.
    columns : BlockColumns
        What was built of them.
    logs : LogColumns
        What was built of their logs.

    Raises
    ------
    ReceiptsRootMismatch, BloomMismatch, GasMismatch, FieldMissing, HexMalformed
    """
    transactions = columns.transactions
    ranges = row_ranges(columns.blocks, transactions)
    count = transactions.rows
    wanted_roots: Any = columns.blocks.columns["receipts_root"]
    expected = rows_of(wanted_roots.values)
    for name in ("cumulative_gas_used", "gas_used"):
        column: Any = transactions.columns[name]
        for row in np.flatnonzero(~column.valid)[:1].tolist():
            at = next(at for at, (_, stop) in enumerate(ranges) if row < stop)
            raise FieldMissing(field=f"receipt {name}", **block_place(blocks[at]))
    given = _given_blooms(blocks, receipts)
    blooms = as_array(given.values)
    # The root covers each receipt's bloom, so blooms that give the root are the true ones.
    if (
        given.valid.all()
        and not _differing_blooms(blooms, columns.blocks, ranges).any()
        and receipt_roots(transactions, logs.logs, blooms, ranges) == expected
    ):
        check_gas(blocks, columns)
        return
    per_receipt: Any = transactions.columns["log_count"]
    owners = np.repeat(np.arange(count), per_receipt.values)
    blooms = receipt_blooms(logs.logs, owners, count)
    roots = receipt_roots(transactions, logs.logs, blooms, ranges)
    kinds: Any = transactions.columns["type"]
    unknown = unknown_types(transactions)
    for block, root, wanted, (start, stop) in zip(blocks, roots, expected, ranges, strict=True):
        if root is None:
            raise FieldMissing(field="receipt status", **block_place(block))
        if root != wanted:
            strange = np.unique(kinds[start:stop][unknown[start:stop]])
            if len(strange):
                types = ", ".join(map(hex, strange))
                raise ReceiptsNotProvable(types=types, **block_place(block))
            raise ReceiptsRootMismatch(
                computed="0x" + root.hex(), expected="0x" + wanted.hex(), **block_place(block)
            )
    _check_blooms(blocks, columns.blocks, blooms, given, ranges)
    check_gas(blocks, columns)


def _given_blooms(blocks: Sequence[Block], receipts: Sequence[Sequence[ReceiptFields]]) -> Nullable:
    """The receipts' blooms as the node gave them."""
    texts = [receipt.logs_bloom for part in receipts for receipt in part]
    rows = block_rows(blocks, [len(part) for part in receipts])
    given = hex_column(parse_kind("?bytes256"), texts, "receipt logsBloom", rows)
    assert isinstance(given, Nullable)
    return given


def _differing_blooms(blooms: Bytes, header: ColumnBlock, ranges: Ranges) -> npt.NDArray[np.bool_]:
    """Which headers have another bloom than their receipts have together."""
    own: Any = header.columns["logs_bloom"]
    differs: npt.NDArray[np.bool_] = np.any(block_blooms(blooms, ranges) != own.values, axis=1)
    return differs


def _check_blooms(
    blocks: Sequence[Block],
    header: ColumnBlock,
    blooms: Bytes,
    given: Nullable,
    ranges: Ranges,
) -> None:
    for row in np.flatnonzero(_differing_blooms(blooms, header, ranges))[:1].tolist():
        raise BloomMismatch(owner="the header", **block_place(blocks[row]))
    differs = given.valid & np.any(blooms != given.values, axis=1)
    for block, (start, stop) in zip(blocks, ranges, strict=True):
        for index in np.flatnonzero(differs[start:stop])[:1].tolist():
            raise BloomMismatch(owner=f"receipt {index}", **block_place(block))


def check_gas(
    blocks: Sequence[Block],
    columns: BlockColumns,
    *,
    counted: npt.NDArray[np.bool_] | None = None,
    own: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Check that gas used is the step of cumulative gas, which ends at the header's gas used.

    Parameters
    ----------
    blocks : sequence of Block
        Only read to name one in an error.
    columns : BlockColumns
        What was built of them and their receipts.
    counted : bool[transactions], optional
        Transactions that use gas of their block; left out, all.
    own : bool[blocks], optional
        Blocks whose header states the gas of their own transactions; left out, all.

    Raises
    ------
    GasMismatch
    """
    transactions: dict[str, Any] = columns.transactions.columns
    header: dict[str, Any] = columns.blocks.columns
    numbers = transactions["block_number"]
    totals, steps = (transactions[name].values for name in ("cumulative_gas_used", "gas_used"))
    if counted is not None and not counted.all():
        numbers, totals, steps = numbers[counted], totals[counted], steps[counted]
    heights = header["block_number"]
    starts, stops = (np.searchsorted(numbers, heights, side) for side in ("left", "right"))
    full = starts < stops
    before = np.zeros_like(totals)
    before[1:] = totals[:-1]
    before[starts[full]] = 0
    for at in np.flatnonzero((totals < before) | (totals - before != steps))[:1].tolist():
        row = int(np.searchsorted(stops, at, "right"))
        _gas_mismatch(
            blocks[row], "gasUsed", at - starts[row], steps[at], int(totals[at]) - int(before[at])
        )
    stated = header["gas_used"].values
    last = np.zeros_like(stated)
    last[full] = totals[stops[full] - 1]
    differs = last != stated
    if own is not None:
        differs &= own
    for row in np.flatnonzero(differs)[:1].tolist():
        count = stops[row] - starts[row]
        _gas_mismatch(blocks[row], "cumulativeGasUsed", count - 1, last[row], stated[row])


def _gas_mismatch(block: Block, field: str, index: int, found: int, expected: int) -> NoReturn:
    raise GasMismatch(
        field=field,
        index=int(index),
        found=int(found),
        expected=int(expected),
        **block_place(block),
    )
