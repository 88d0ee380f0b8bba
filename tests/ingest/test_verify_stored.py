"""What is stored proves again, in any order of rows, and every altered cell is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

from ingest.reprove import StoredRange, verify_stored
from ingest.verify import prove_segment
from schemas.columns import ColumnBlock, Nullable, Ragged, Struct, take
from schemas.tables import (
    BLOCKS,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    Table,
    Verification,
)
from tests.ingest.real_blocks import (
    devchain_payload,
    load_payload,
    needs_chaindata,
    parsed,
    parsed_receipts,
)

RANGE = range(1, 9)
PARTS = {
    "blocks": BLOCKS,
    "transactions": TRANSACTION_TABLE,
    "logs": LOGS,
    "withdrawals": WITHDRAWALS,
}


@cache
def _proven(level: Verification = Verification.full) -> StoredRange:
    payloads = [devchain_payload(number) for number in RANGE]
    blocks = [parsed(block) for block, _ in payloads]
    proven = prove_segment(blocks, [parsed_receipts(part) for _, part in payloads], level)
    assert proven.logs is not None
    columns = proven.columns
    return StoredRange(columns.blocks, columns.transactions, proven.logs.logs, columns.withdrawals)


def _part(stored: StoredRange, name: str) -> ColumnBlock:
    block = getattr(stored, name)
    assert isinstance(block, ColumnBlock)
    return block


def _rows(table: Table, block: ColumnBlock, index: Any) -> ColumnBlock:
    chosen = np.asarray(index, np.int64)
    columns = {
        spec.name: take(spec.kind, block.columns[spec.name], chosen) for spec in table.columns
    }
    return ColumnBlock(block.table, len(chosen), columns)


def test_stored_rows_prove_again_in_any_order() -> None:
    stored, dice = _proven(), Random(5)
    for name, table in PARTS.items():
        block = _part(stored, name)
        order = list(range(block.rows))
        dice.shuffle(order)
        stored = replace(stored, **{name: _rows(table, block, order)})
    assert verify_stored(stored) == []


@pytest.mark.parametrize("leave_out", [("transactions", "logs"), ("logs",), ("withdrawals",)])
def test_tables_may_be_left_out(leave_out: tuple[str, ...]) -> None:
    assert verify_stored(replace(_proven(), **dict.fromkeys(leave_out))) == []


@pytest.mark.parametrize("name", ["transactions", "logs", "withdrawals"])
@pytest.mark.parametrize("change", ["lost", "doubled"])
def test_a_row_lost_or_doubled_is_found(name: str, change: str) -> None:
    stored = _proven()
    block = _part(stored, name)
    row = block.rows // 2
    order = list(range(block.rows))
    order = order[:row] + order[row + 1 :] if change == "lost" else [*order, row]
    violations = verify_stored(replace(stored, **{name: _rows(PARTS[name], block, order)}))
    assert violations
    number = int(block.columns["block_number"][row])
    assert {violation.block_number for violation in violations} == {number}


def test_a_lost_block_is_found() -> None:
    stored = _proven()
    kept = _rows(BLOCKS, stored.blocks, [0, 1, 2, 4, 5, 6, 7])
    found = [violation.what for violation in verify_stored(replace(stored, blocks=kept))]
    assert "it follows block 3" in found
    assert any("rows of a block that is not in blocks" in what for what in found)


UNPROVEN = {
    "blocks": {
        "extra",
        "size_bytes",
        "verification",
        # The devchain's headers have none.
        "block_access_list_hash",
        "slot_number",
    },
    "transactions": {
        "block_time",
        "from_address",
        "has_access_list",
        "gas_used",
        "effective_gas_price_wei",
        "contract_address",
        "blob_gas_used",
        "blob_gas_price_wei",
        "l1_fee_wei",
        "deposit_nonce",
        "deposit_receipt_version",
        "source_hash",
        "mint_wei",
        "is_system_transaction",
        "post_state_root",
        "extra",
    },
    "logs": {"block_time"},
    "withdrawals": {"block_time"},
}
"""Columns that no root covers on this chain: the data dictionary says so of most."""

CELLS = [
    (name, spec.name)
    for name, table in PARTS.items()
    for spec in table.columns
    if spec.name not in UNPROVEN[name]
]


def _bump(column: Any, row: int) -> Any:
    """The column with another value at `row`; None where the row has no value to change."""
    if isinstance(column, Nullable):
        if not column.valid[row]:
            return None
        changed = _bump(column.values, row)
        return None if changed is None else Nullable(column.valid, changed)
    if isinstance(column, Ragged):
        if column.offsets[row] == column.offsets[row + 1]:
            return None
        return Ragged(column.offsets, _bump(column.values, int(column.offsets[row])))
    if isinstance(column, Struct):
        return Struct((_bump(column.fields[0], row), *column.fields[1:]))
    changed = column.copy()
    changed[row] ^= 1 if changed.ndim == 1 else np.eye(1, changed.shape[1], dtype=np.uint8)[0]
    return changed


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_an_altered_cell_is_found(name: str, column: str) -> None:
    stored = _proven()
    block = _part(stored, name)
    kinds = {"gas_price_wei": 0, "chain_id": 2}
    found = None
    for row in range(block.rows):
        if column in kinds and block.columns["type"][row] != kinds[column]:
            continue
        changed = _bump(block.columns[column], row)
        if changed is not None:
            columns = block.columns | {column: changed}
            altered = ColumnBlock(block.table, block.rows, columns)
            found = verify_stored(replace(stored, **{name: altered}))
            break
    assert found is not None, "no row of the devchain has a value here"
    assert found, f"{name}.{column} was altered unnoticed"


@needs_chaindata
def test_an_altered_post_state_root_is_found() -> None:
    block, receipts = load_payload("mainnet", 1_000_000)
    assert receipts is not None
    full = Verification.full
    proven = prove_segment([parsed(block)], [parsed_receipts(receipts)], full)
    assert proven.logs is not None
    rows = proven.columns.transactions
    changed = rows.columns | {"post_state_root": _bump(rows.columns["post_state_root"], 0)}
    altered = ColumnBlock(rows.table, rows.rows, changed)
    for transactions, violations in ((rows, 0), (altered, 1)):
        stored = StoredRange(proven.columns.blocks, transactions, proven.logs.logs)
        assert len(verify_stored(stored)) == violations


def _alter(name: str, column: str, change: Callable[[Any], Any]) -> list[str]:
    stored = _proven()
    block = _part(stored, name)
    columns = block.columns | {column: change(block.columns[column])}
    altered = ColumnBlock(block.table, block.rows, columns)
    return [violation.what for violation in verify_stored(replace(stored, **{name: altered}))]


def test_violations_say_what_is_wrong() -> None:
    flip_first = lambda column: _bump(column, 0)  # noqa: E731
    assert _alter("logs", "address", flip_first) == [
        "its receipts and logs do not have the root of the header"
    ]
    assert _alter("logs", "transaction_hash", flip_first) == [
        "a log names a transaction that is not the one at its index"
    ]
    assert any(
        "does not hash to its transaction_hash" in what
        for what in _alter("transactions", "transaction_hash", flip_first)
    )
    assert _alter("withdrawals", "amount_gwei", flip_first) == [
        "its withdrawals do not have the root of the header"
    ]
    [what] = _alter("blocks", "state_root", flip_first)
    assert what.startswith("its header hashes to 0x")


def test_a_wrong_parent_is_found_beside_a_wrong_hash() -> None:
    found = _alter("blocks", "parent_hash", lambda column: _bump(column, 3))
    assert "parent_hash is not the hash of the block before" in found


@pytest.mark.parametrize("level", [Verification.off, Verification.header])
def test_what_was_never_proven_is_not_expected(level: Verification) -> None:
    stored = _proven(level)
    assert verify_stored(stored) == []
    log = _part(stored, "logs")
    changed = _bump(log.columns["address"], 0)
    altered = ColumnBlock(log.table, log.rows, log.columns | {"address": changed})
    assert verify_stored(replace(stored, logs=altered)) == []


def test_a_lie_that_receipts_could_not_see_is_found_by_the_audit() -> None:
    payloads = [devchain_payload(number) for number in RANGE]
    payloads[0][0]["transactions"][0]["value"] = "0x1234567"
    blocks = [parsed(block) for block, _ in payloads]
    receipts = [parsed_receipts(part) for _, part in payloads]
    proven = prove_segment(blocks, receipts, Verification.receipts)
    found = verify_stored(StoredRange(proven.columns.blocks, proven.columns.transactions))
    assert [violation.what for violation in found] == [
        "its transactions do not have the root of the header",
        "transaction 0 does not hash to its transaction_hash",
    ]
