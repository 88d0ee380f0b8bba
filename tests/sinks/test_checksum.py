from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import ColumnBlock, take
from schemas.events import DECODE_FAILURES
from schemas.tables import CORE_TABLES, LOGS, Table
from sinks.checksum import added, block_checksums, stored_manifest
from sinks.connection import Connection
from sinks.ddl import CREATE_SETTINGS, OPEN, EngineFamily, create_table
from sinks.load_block import load_block
from tests.sinks.random_columns import random_block


def part(table: Table, block: ColumnBlock, index: list[int]) -> ColumnBlock:
    rows = np.array(index, np.int64)
    columns = {s.name: take(s.kind, block.columns[s.name], rows) for s in table.columns}
    return ColumnBlock(table.name, len(index), columns)


@pytest.mark.parametrize("table", [*CORE_TABLES, DECODE_FAILURES], ids=lambda table: table.name)
@pytest.mark.parametrize("seed", range(3))
def test_numpy_and_sql_agree(table: Table, seed: int, database: Connection) -> None:
    name = database.endpoint.database
    sql = create_table(name, table, OPEN, 1000, EngineFamily())
    database.execute(sql, settings=CREATE_SETTINGS)
    place = f"{name}.{table.name}{OPEN}"
    assert stored_manifest(database, place, table) == (0, 0)
    block = random_block(table, 200, seed)
    database.insert_block(place, load_block(table, [block], 9))
    assert stored_manifest(database, place, table) == (200, block_checksums(table, [block])[0])
    below = np.flatnonzero(block.columns["block_number"] < 5).tolist()  # type: ignore[operator]
    wanted = block_checksums(table, [part(table, block, below)])[0]
    got = stored_manifest(database, place, table, "block_number < 5 AND load_id = 9")
    assert got == (len(below), wanted)


@given(st.integers(0, 50), st.integers(0, 2**32 - 1), st.data())
def test_any_split_adds_up_and_order_does_not_matter(
    rows: int, seed: int, data: st.DataObject
) -> None:
    block = random_block(LOGS, rows, seed) if rows else random_block(LOGS, 1, seed)
    order = data.draw(st.permutations(range(block.rows)))
    cut = data.draw(st.integers(0, block.rows))
    halves = [part(LOGS, block, order[:cut]), part(LOGS, block, order[cut:])]
    whole = block_checksums(LOGS, [block])[0]
    none = ColumnBlock(LOGS.name, 0, {})
    sums = block_checksums(LOGS, [none, *halves, none])
    assert added(sums) == whole
    assert sums[0] == sums[-1] == 0


def test_losing_doubling_or_exchanging_a_row_changes_it() -> None:
    block = random_block(LOGS, 64, 5)
    whole = block_checksums(LOGS, [block])[0]
    every = list(range(64))
    assert block_checksums(LOGS, [part(LOGS, block, every[1:])])[0] != whole
    assert block_checksums(LOGS, [part(LOGS, block, [*every, 3])])[0] != whole
    assert block_checksums(LOGS, [part(LOGS, block, [1, *every[1:]])])[0] != whole
    swapped = dict(block.columns)
    swapped["log_index"] = np.roll(block.columns["log_index"], 1)  # type: ignore[arg-type]
    assert block_checksums(LOGS, [ColumnBlock("logs", 64, swapped)])[0] != whole
