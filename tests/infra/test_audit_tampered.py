"""What is stored is changed behind the back of everybody: the audit names what was changed.

One data directory is indexed from a devchain; its first partitions are sealed. Each test changes
rows, runs the audit, and puts the rows back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from infra.audit_aggregates import aggregate_invariants
from processors.abi import build_layouts
from schemas.tables import (
    AGGREGATE_TABLES,
    BLOCKS,
    CORE_TABLES,
    DERIVED,
    LOGS,
    NOTHING,
    POOL_TRADES,
    SIGNATURE,
    TOKEN_FLOWS,
    TRANSACTION_TABLE,
    ColumnSpec,
    Table,
)
from tests.infra.conftest import HEAD, Indexed
from tests.infra.tampering import other_value

EVENTS_MAX = 18
BATCH = 9
"""Rows of one table that are changed at a time, each of another block."""
EVENTS = {table.name: table for table in build_layouts().tables}
TRANSFERS = EVENTS["erc20_transfers"]
AGAIN_UNPROVEN = (NOTHING, SIGNATURE, DERIVED)
"""The audit computes hashes and roots again, not what follows from them."""
PROVEN = [
    (table, specs[at : at + BATCH])
    for table in CORE_TABLES
    if table not in AGGREGATE_TABLES
    for specs in [[one for one in table.columns if one.proven_by not in AGAIN_UNPROVEN]]
    for at in range(0, len(specs), BATCH)
]
"""A table, and some of its columns."""


def rows_for(
    indexed: Indexed, table: Table, specs: Sequence[ColumnSpec]
) -> list[tuple[str, int, ColumnSpec]]:
    """Columns, each with a row (a condition, its block) where it is used if there is any.

    The rows are of blocks that lie apart, open ones and sealed ones.
    """
    chosen: list[tuple[str, int, ColumnSpec]] = []
    for spec in specs:
        used = _used(spec)
        rows = indexed.connection.execute(
            f"SELECT DISTINCT block_number, {used} AS used FROM {table.name} "
            "WHERE block_number > 0 ORDER BY used DESC, sipHash64(block_number)"
        )
        far = [
            (number, has)
            for number, has in rows
            if all(abs(number - other) > 2 for _, other, _ in chosen)
        ]
        number, has = far[0]
        chosen.append((f"block_number = {number} AND {used} = {has}", number, spec))
    return chosen


def _used(spec: ColumnSpec) -> str:
    if spec.name == "gas_price_wei":
        return "type = 0"  # of later types it is the node's word
    if spec.kind.shape == "nullable":
        return f"isNotNull({spec.name})"
    return f"notEmpty({spec.name})" if spec.kind.shape == "list" else "1"


@pytest.mark.parametrize(
    ("table", "specs"), PROVEN, ids=[f"{table.name}.{specs[0].name}" for table, specs in PROVEN]
)
def test_any_other_value_in_a_proven_column_is_noticed(
    indexed: Indexed,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
    table: Table,
    specs: Sequence[ColumnSpec],
) -> None:
    monkeypatch.setattr("infra.audit.FINDINGS_MAX", 1000)
    batch = rows_for(indexed, table, specs)
    with indexed.tamperer.restoring(table):
        for where, _, spec in batch:
            place, row = indexed.tamperer.visible(table, where)
            value = other_value(spec.kind, spec.name)
            indexed.tamperer.change(place, row, **{spec.name: value})
        # I10 names the first block of a load.
        named = {number for code, number, _ in said() if code != "I10"}
    missed = [spec.name for _, number, spec in batch if number not in named]
    assert not missed, missed
    neighbours = {number + step for _, number, _ in batch for step in (-1, 0, 1)}
    assert named <= neighbours, sorted(named - neighbours)


@pytest.mark.parametrize("table", AGGREGATE_TABLES, ids=lambda table: table.name)
def test_any_other_value_in_an_aggregate_is_noticed(indexed: Indexed, table: Table) -> None:
    def found() -> list[tuple[int, str]]:
        return [
            row
            for check in aggregate_invariants()
            for row in indexed.connection.execute(check.sql.format(from_block=0, to_block=HEAD))
        ]

    for spec in table.columns:
        with indexed.tamperer.restoring(table):
            place, row = indexed.tamperer.visible(table, _used(spec))
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            value = other_value(spec.kind, spec.name)
            indexed.tamperer.change(place, row, **{spec.name: value})
            told = found()
        assert number in {at for at, _ in told}, spec.name
        assert all(what.startswith(f"{table.name}: the row of address 0x") for _, what in told)
        if spec.name not in table.identity:
            ((_, what),) = told
            assert what.endswith(f" differs from its events in {spec.name}")
    assert found() == []


def test_any_other_value_in_an_event_is_noticed(indexed: Indexed, said: Any) -> None:
    filled = [
        table
        for table in EVENTS.values()
        if indexed.connection.value(f"SELECT count() FROM {table.name}")
    ][:EVENTS_MAX]
    assert len(filled) > EVENTS_MAX // 2
    with indexed.tamperer.restoring(*filled):
        for table in filled:
            spec = table.columns[-1]
            place, row = indexed.tamperer.visible(table, "1")
            indexed.tamperer.change(place, row, **{spec.name: other_value(spec.kind, spec.name)})
        found = said()
    assert {code for code, _, _ in found} == {"I8"}
    # An aggregate of an event that was changed no longer adds up, either.
    events = [what for _, _, what in found if ": the row of log_index " in what]
    others = {what.split(":")[0] for _, _, what in found} - {table.name for table in filled}
    assert others <= {table.name for table in AGGREGATE_TABLES}
    for table, what in zip(filled, events, strict=True):
        assert what.startswith(f"{table.name}: the row of log_index ")
        assert what.endswith(f" differs from its log in {table.columns[-1].name}")


@pytest.mark.parametrize("block", [3, HEAD - 18], ids=["sealed", "open"])
@pytest.mark.parametrize("what", ["delete", "double"])
def test_a_row_that_is_gone_or_doubled_is_noticed(
    indexed: Indexed, said: Any, what: str, block: int
) -> None:
    expected = {
        ("delete", BLOCKS): {"I1"},
        ("delete", TRANSACTION_TABLE): {"I2/I3"},
        ("delete", LOGS): {"I4", "I2/I3"},
        ("delete", TRANSFERS): {"I8"},
        ("delete", TOKEN_FLOWS): {"I8"},
        ("delete", POOL_TRADES): {"I8"},
        ("double", BLOCKS): {"I5", "I6"},
        ("double", TRANSACTION_TABLE): {"I6", "I2/I3"},
        ("double", LOGS): {"I4", "I6", "I2/I3"},
        ("double", TRANSFERS): {"I6", "I8"},
        ("double", TOKEN_FLOWS): {"I6", "I8"},
        ("double", POOL_TRADES): {"I6", "I8"},
    }
    tables = [table for done, table in expected if done == what]
    changed = {}
    with indexed.tamperer.restoring(*tables):
        for at, table in enumerate(tables):
            where = f"block_number >= {block + 3 * at}"
            place, row = indexed.tamperer.visible(table, where)
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            getattr(indexed.tamperer, what)(place, row)
            changed[table] = (number, place)
        found = said(0, HEAD)
    for table, (number, place) in changed.items():
        codes = {code for code, n, _ in found if n in (number, number + 1)}
        assert expected[what, table] <= codes, f"{table.name}: {found}"
        assert any(f"{place}: load" in text for code, _, text in found if code == "I10")


def test_a_whole_block_that_is_gone_is_noticed(indexed: Indexed, said: Any) -> None:
    for number in (11, HEAD):
        tables = (*CORE_TABLES, *EVENTS.values())
        with indexed.tamperer.restoring(*tables):
            for table in tables:
                place = indexed.tamperer.place(table, number)
                indexed.tamperer.delete(place, f"block_number = {number}")
            found = said()
        wanted = number + 1 if number < HEAD else HEAD
        assert ("I1", wanted) in {(code, n) for code, n, _ in found}
        assert "I10" in {code for code, _, _ in found}


def test_rows_of_a_block_that_is_not_visible_are_noticed(indexed: Indexed, said: Any) -> None:
    for table in (LOGS, TRANSACTION_TABLE, TRANSFERS):
        with indexed.tamperer.restoring(table):
            place, row = indexed.tamperer.visible(table, "block_number > 20")
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            strange = other_value(table.column("block_hash").kind, "block_hash")
            indexed.tamperer.change(place, row, block_hash=strange)
            found = said(number, number)
        (what,) = [what for code, _, what in found if code == "I6"]
        assert "no block 0x" in what


def test_a_load_without_a_ledger_row_is_noticed(indexed: Indexed, said: Any) -> None:
    load = indexed.tamperer.row.loads[0]
    run = indexed.connection.execute
    run("CREATE TABLE kept_ledger ENGINE = Memory AS SELECT * FROM ledger")
    try:
        run(f"ALTER TABLE ledger DELETE WHERE load_id = {load} SETTINGS mutations_sync = 2")
        assert ("I10", f"load {load} is visible and has no ledger row") in {
            (code, what) for code, _, what in said()
        }
    finally:
        run("TRUNCATE TABLE ledger SYNC")
        run("INSERT INTO ledger SELECT * FROM kept_ledger")
        run("DROP TABLE kept_ledger SYNC")
    assert said() == []


def test_it_says_how_many_logs_are_stored_and_how_many_belong(indexed: Indexed, said: Any) -> None:
    with indexed.tamperer.restoring(LOGS):
        (number, belong), *_ = indexed.connection.execute(
            "SELECT block_number, count() FROM logs WHERE block_number >= 30 "
            "GROUP BY block_number HAVING count() > 1 LIMIT 1"
        )
        place, row = indexed.tamperer.visible(LOGS, f"block_number = {number} AND log_index = 0")
        indexed.tamperer.delete(place, row)
        what = [text for code, _, text in said(number, number) if code == "I4"]

    wanted = f"{belong - 1} logs are stored, {belong} belong there by its receipts"
    assert any(wanted in text for text in what), what
