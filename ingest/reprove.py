"""Stored columns of a range in, the violations of its blocks' own hashes out: the audit's proof.

Nothing is believed but the arithmetic: headers are hashed again, and transactions, receipts, logs
and withdrawals are encoded from what the database holds, with the encoders that proved them when
they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.encode_transactions import encode_transactions
from ingest.keccak import keccak
from ingest.proofs import (
    Ranges,
    block_blooms,
    header_hashes,
    receipt_blooms,
    receipt_roots,
    row_ranges,
    transaction_root,
    withdrawal_roots,
)
from ingest.rlpcolumns import rows_of
from schemas.columns import ColumnBlock, take
from schemas.tables import BLOCKS, LOGS, TRANSACTION_TABLE, WITHDRAWALS, Table, Verification


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is stored and cannot be so."""

    block_number: int
    """Height of the block."""
    block_hash: bytes
    """Its hash as stored, 32 bytes."""
    what: str
    """What is wrong, in words."""


@dataclass(frozen=True, slots=True)
class StoredRange:
    """What the database holds of a contiguous range; rows may come in any order."""

    blocks: ColumnBlock
    """Rows of ``blocks``."""
    transactions: ColumnBlock | None = None
    """Rows of ``transactions``; None where they are not to be checked."""
    logs: ColumnBlock | None = None
    """Rows of ``logs``; checked against receiptsRoot where transactions are given as well."""
    withdrawals: ColumnBlock | None = None
    """Rows of ``withdrawals``; None on chains whose withdrawalsRoot is no list's root."""


def verify_stored(stored: StoredRange) -> list[Violation]:
    """Prove stored rows again.

    Parameters
    ----------
    stored : StoredRange
        The rows of a range, read back. Receipts can only be proven of blocks that were stored
        with them, by the source ``receipts``.

    Returns
    -------
    list of Violation
        By height; empty where all is as the block hashes say. What a block was not proven for
        when it was stored (its ``verification``) is not expected now; from ``receipts`` on all
        is. Where a header's hash is wrong nothing else is said of the block.
    """
    blocks = _sorted(BLOCKS, stored.blocks, ("block_number",))
    report = _Report(blocks)
    _check_headers(blocks, report)
    tables = {
        table.name: _sorted(table, rows, ("block_number", position))
        for table, rows, position in (
            (TRANSACTION_TABLE, stored.transactions, "transaction_index"),
            (LOGS, stored.logs, "log_index"),
            (WITHDRAWALS, stored.withdrawals, "position"),
        )
        if rows is not None
    }
    for table in tables.values():
        report.strangers(table)
    transactions = tables.get("transactions")
    if transactions is not None:
        _check_transactions(blocks, transactions, report)
        if "logs" in tables:
            _check_receipts(blocks, transactions, tables["logs"], report)
    if "withdrawals" in tables:
        _check_withdrawals(blocks, tables["withdrawals"], report)
    return sorted(report.violations, key=lambda violation: violation.block_number)


def unprovable_headers(blocks: ColumnBlock) -> dict[str, int]:
    """How many headers of blocks that were stored unproven have no hash to compare, by the reason.

    Parameters
    ----------
    blocks : ColumnBlock
        Rows of ``blocks``.

    Returns
    -------
    dict
        Empty where each header hashes to its block's hash, or was proven when it was stored.
    """
    column: Any = blocks.columns
    ends, raw = column["extra"].offsets.tolist(), column["extra"].values.tobytes()
    hashes = rows_of(column["block_hash"])
    found: dict[str, int] = {}
    for row, computed in enumerate(header_hashes(blocks)):
        if column["verification"][row] >= Verification.header or computed == hashes[row]:
            continue
        names = ", ".join(sorted(msgspec.json.decode(raw[ends[row] : ends[row + 1]] or b"{}")))
        if computed is None:
            reason = "a field that every header has is missing"
        elif names:
            reason = f"they have fields that this version does not know: {names}"
        else:
            reason = "they do not hash to their block's hash, and were stored unproven"
        found[reason] = found.get(reason, 0) + 1
    return found


class _Report:
    """Collects violations, and none further of a block whose header is wrong."""

    def __init__(self, blocks: ColumnBlock) -> None:
        self.violations: list[Violation] = []
        column: Any = blocks.columns
        self.numbers: list[int] = column["block_number"].tolist()
        self.hashes = rows_of(column["block_hash"])
        self.levels: list[int] = column["verification"].tolist()
        self.has_receipts: list[bool] = column["log_count"].valid.tolist()
        self._headless: set[int] = set()

    def level(self, row: int) -> int:
        """How far a block was proven, and must be provable again."""
        return self.levels[row]

    def add(self, row: int, what: str, *, header: bool = False) -> None:
        if row not in self._headless:
            self.violations.append(Violation(self.numbers[row], self.hashes[row], what))
        if header:
            self._headless.add(row)

    def strangers(self, table: ColumnBlock) -> None:
        """Rows that name a block which is not stored."""
        column: Any = table.columns
        known = set(zip(self.numbers, self.hashes, strict=True))
        own = zip(column["block_number"].tolist(), rows_of(column["block_hash"]), strict=True)
        for number, block_hash in sorted(set(own) - known):
            what = f"{table.table} has rows of a block that is not in blocks"
            self.violations.append(Violation(number, block_hash, what))


def _check_headers(blocks: ColumnBlock, report: _Report) -> None:
    parents = rows_of(blocks.columns["parent_hash"])
    for row, computed in enumerate(header_hashes(blocks)):
        if row and report.numbers[row] != report.numbers[row - 1] + 1:
            report.add(row, f"it follows block {report.numbers[row - 1]}", header=True)
        elif row and parents[row] != report.hashes[row - 1]:
            report.add(row, "parent_hash is not the hash of the block before")
        if report.level(row) >= Verification.header and computed != report.hashes[row]:
            what = f"hashes to 0x{computed.hex()}" if computed else "lacks a field and has no hash"
            report.add(row, f"its header {what}", header=True)


def _check_transactions(blocks: ColumnBlock, transactions: ColumnBlock, report: _Report) -> None:
    ranges = row_ranges(blocks, transactions)
    _check_positions(transactions, "transaction_index", ranges, report, range(blocks.rows))
    _check_counts(blocks, "transaction_count", ranges, report)
    encoded = encode_transactions(transactions)
    hashes = rows_of(transactions.columns["transaction_hash"])
    wanted: Any = blocks.columns["transactions_root"]
    roots = rows_of(wanted.values)
    for row, (start, stop) in enumerate(ranges):
        own = encoded[start:stop]
        if None in own or report.level(row) < Verification.receipts:
            continue
        if transaction_root(own) != roots[row]:
            report.add(row, "its transactions do not have the root of the header")
        for index, payload in enumerate(own):
            if keccak(payload or b"") != hashes[start + index]:
                report.add(row, f"transaction {index} does not hash to its transaction_hash")


def _check_receipts(
    blocks: ColumnBlock, transactions: ColumnBlock, logs: ColumnBlock, report: _Report
) -> None:
    ranges, log_ranges = row_ranges(blocks, transactions), row_ranges(blocks, logs)
    proven = [row for row in range(blocks.rows) if report.level(row) >= Verification.receipts]
    _check_positions(logs, "log_index", log_ranges, report, proven)
    _check_counts(blocks, "log_count", log_ranges, report)
    owners = _owners(ranges, log_ranges, logs)
    stray = _stray(transactions, logs, owners)
    counted = np.bincount(owners[owners >= 0], minlength=transactions.rows)
    stated: Any = transactions.columns["log_count"]
    short = counted != stated.values
    sound = []
    for row in proven:
        (start, stop), (first, last) = ranges[row], log_ranges[row]
        if stray[first:last].any():
            report.add(row, "a log names a transaction that is not the one at its index")
        if short[start:stop].any() or (owners[first:last] < 0).any():
            report.add(row, "its transactions do not have as many logs as their receipts say")
        else:
            sound.append(row)
    _check_receipt_roots(_part(BLOCKS, blocks, sound), transactions, logs, report)


def _check_receipt_roots(
    blocks: ColumnBlock, transactions: ColumnBlock, logs: ColumnBlock, report: _Report
) -> None:
    """Prove the receipts of blocks whose logs are as many as their receipts say."""
    transactions = _inside(TRANSACTION_TABLE, transactions, blocks)
    logs = _inside(LOGS, logs, blocks)
    ranges = row_ranges(blocks, transactions)
    stated: Any = transactions.columns["log_count"]
    owners = np.repeat(np.arange(transactions.rows), stated.values)
    blooms = receipt_blooms(logs, owners, transactions.rows)
    header: dict[str, Any] = blocks.columns
    expected = rows_of(header["receipts_root"].values)
    differs = np.any(block_blooms(blooms, ranges) != header["logs_bloom"].values, axis=1)
    numbers: Any = blocks.columns["block_number"]
    roots = receipt_roots(transactions, logs, blooms, ranges)
    for number, root, wanted, bloom in zip(numbers.tolist(), roots, expected, differs, strict=True):
        row = report.numbers.index(number)
        if root != wanted:
            report.add(row, "its receipts and logs do not have the root of the header")
        elif bloom:
            report.add(row, "its logs do not have the bloom of the header")


def _check_withdrawals(blocks: ColumnBlock, withdrawals: ColumnBlock, report: _Report) -> None:
    ranges = row_ranges(blocks, withdrawals)
    _check_positions(withdrawals, "position", ranges, report, range(blocks.rows))
    expected: Any = blocks.columns["withdrawals_root"]
    roots = rows_of(expected.values)
    for row, computed in enumerate(withdrawal_roots(withdrawals, ranges)):
        start, stop = ranges[row]
        absent = not expected.valid[row]
        if report.level(row) < Verification.receipts:
            continue
        if (stop > start) if absent else (computed != roots[row]):
            report.add(row, "its withdrawals do not have the root of the header")


def _check_positions(
    table: ColumnBlock, name: str, ranges: Ranges, report: _Report, of: Iterable[int]
) -> None:
    """Positions are 0 … n - 1 in these blocks, so no row is there twice and none is missing."""
    column: Any = table.columns[name]
    for row in of:
        start, stop = ranges[row]
        if np.any(column[start:stop] != np.arange(stop - start)):
            report.add(row, f"{table.table}: {name} does not count from 0 without gaps")


def _check_counts(blocks: ColumnBlock, name: str, ranges: Ranges, report: _Report) -> None:
    column: Any = blocks.columns[name]
    for row, (start, stop) in enumerate(ranges):
        # The source `logs` stores neither transactions nor unfiltered logs.
        whole = report.has_receipts[row] and column.valid[row]
        if whole and int(column.values[row]) != stop - start:
            report.add(row, f"{name} is {column.values[row]}, but {stop - start} rows are there")


def _owners(ranges: Ranges, log_ranges: Ranges, logs: ColumnBlock) -> npt.NDArray[np.int64]:
    """The row of each log's transaction; -1 where its block has no such transaction."""
    column: Any = logs.columns["transaction_index"]
    owners = np.full(logs.rows, -1, np.int64)
    for (start, stop), (first, last) in zip(ranges, log_ranges, strict=True):
        rows = column.values[first:last].astype(np.int64) + start
        owners[first:last] = np.where((rows < stop) & column.valid[first:last], rows, -1)
    return owners


def _stray(
    transactions: ColumnBlock, logs: ColumnBlock, owners: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which logs name another transaction than the one at their index."""
    if not transactions.rows:
        return np.ones(logs.rows, np.bool_)
    hashes: Any = transactions.columns["transaction_hash"]
    own: Any = logs.columns["transaction_hash"]
    named: npt.NDArray[np.bool_] = np.any(hashes[np.maximum(owners, 0)] != own, axis=1)
    return named | (owners < 0)


def _sorted(table: Table, rows: ColumnBlock, keys: tuple[str, ...]) -> ColumnBlock:
    columns: dict[str, Any] = rows.columns
    order = np.lexsort([columns[key] for key in reversed(keys)])
    return _part(table, rows, order)


def _inside(table: Table, rows: ColumnBlock, blocks: ColumnBlock) -> ColumnBlock:
    """The rows of these blocks only."""
    column: Any = rows.columns["block_number"]
    heights: Any = blocks.columns["block_number"]
    return _part(table, rows, np.flatnonzero(np.isin(column, heights)))


def _part(table: Table, rows: ColumnBlock, index: Any) -> ColumnBlock:
    taken = np.asarray(index, np.int64)
    if len(taken) == rows.rows and np.array_equal(taken, np.arange(rows.rows)):
        return rows
    columns = {spec.name: take(spec.kind, rows.columns[spec.name], taken) for spec in table.columns}
    return ColumnBlock(rows.table, len(taken), columns)
