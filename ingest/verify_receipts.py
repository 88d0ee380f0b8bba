"""Receipts and the columns built of them in, a coded error out where a root disproves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.build import BlockColumns
from ingest.build_logs import LogColumns
from ingest.encode_transactions import KNOWN_TYPES
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
from schemas.errors_verify import BloomMismatch, FieldMissing, GasMismatch, ReceiptsRootMismatch
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
    given = _given_blooms(blocks, receipts)
    blooms = as_array(given.values)
    # The root covers each receipt's bloom, so blooms that give the root are the true ones.
    if (
        given.valid.all()
        and not _differing_blooms(blooms, columns.blocks, ranges).any()
        and receipt_roots(transactions, logs.logs, blooms, ranges) == expected
    ):
        _check_gas(blocks, columns, ranges)
        return
    per_receipt: Any = transactions.columns["log_count"]
    owners = np.repeat(np.arange(count), per_receipt.values)
    blooms = receipt_blooms(logs.logs, owners, count)
    roots = receipt_roots(transactions, logs.logs, blooms, ranges)
    kinds: Any = transactions.columns["type"]
    for block, root, wanted, (start, stop) in zip(blocks, roots, expected, ranges, strict=True):
        if root is None:
            raise FieldMissing(field="receipt status", **block_place(block))
        if root != wanted:
            strange = sorted({*kinds[start:stop].tolist()} - KNOWN_TYPES)
            note = f" Or receipts of the types {strange} are encoded otherwise." if strange else ""
            raise ReceiptsRootMismatch(
                computed="0x" + root.hex(),
                expected="0x" + wanted.hex(),
                note=note,
                **block_place(block),
            )
    _check_blooms(blocks, columns.blocks, blooms, given, ranges)
    _check_gas(blocks, columns, ranges)


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


def _check_gas(blocks: Sequence[Block], columns: BlockColumns, ranges: Ranges) -> None:
    """Gas used is the step of cumulative gas, which ends at the header's gas used."""
    header: Any = columns.blocks.columns["gas_used"]
    cumulative: Any = columns.transactions.columns["cumulative_gas_used"]
    used: Any = columns.transactions.columns["gas_used"]
    totals, steps = cumulative.values, used.values
    before = np.zeros_like(totals)
    before[1:] = totals[:-1]
    firsts = [start for start, stop in ranges if start < stop]
    before[firsts] = 0
    wrong = np.flatnonzero((totals < before) | (totals - before != steps))
    for block, gas, (start, stop) in zip(blocks, header.values.tolist(), ranges, strict=True):
        inside = wrong[(wrong >= start) & (wrong < stop)]
        if len(inside):
            at = int(inside[0])
            step = int(totals[at]) - int(before[at])
            raise GasMismatch(
                field="gasUsed",
                index=at - start,
                found=int(steps[at]),
                expected=step,
                **block_place(block),
            )
        last = int(totals[stop - 1]) if stop > start else 0
        if last != gas:
            raise GasMismatch(
                field="cumulativeGasUsed",
                index=stop - start - 1,
                found=last,
                expected=gas,
                **block_place(block),
            )
