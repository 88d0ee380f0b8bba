"""Ledger rows in, what loads and partitions must hold out, and whether they do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from schemas.chains import ChainFacts
from schemas.tables import Table
from sinks.canon_table import id_list
from sinks.checksum import checksum_sql
from sinks.connection import Connection
from sinks.ledger import LedgerRow, read_ledger

Manifest = dict[str, tuple[int, int]]
"""(rows, checksum) by table."""

_MASK = (1 << 64) - 1

INSERT_SELECT: dict[str, object] = {
    "deduplicate_insert": "disable",
    "insert_deduplicate": 0,
    "max_insert_threads": 1,
    "max_threads": 2,
    "max_partitions_per_insert_block": 1,
}
"""Settings of our own INSERT … SELECT: of one partition, never deduplicated."""


def open_ledger(
    connection: Connection, database: str, facts: ChainFacts, sealed: Iterable[int]
) -> list[LedgerRow]:
    """The ledger rows of the partitions that are not sealed.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    rows: list[LedgerRow] = []
    size, start = facts.partition_blocks, 0
    for partition in sorted(sealed):
        if partition * size > start:
            last = partition * size - 1
            rows += read_ledger(connection, database, from_block=start, to_block=last)
        start = (partition + 1) * size
    return rows + read_ledger(connection, database, from_block=start)


def of_these(rows: Iterable[LedgerRow], loads: Collection[int]) -> list[LedgerRow]:
    """The ledger rows of some loads, each once, in order of blocks."""
    wanted = frozenset(loads)
    once = {(row.load_id, row.from_block): row for row in rows if row.load_id in wanted}
    return sorted(once.values(), key=lambda row: (row.from_block, row.load_id))


def rows_of_loads(
    connection: Connection, database: str, loads: Collection[int], from_block: int, to_block: int
) -> list[LedgerRow]:
    """The ledger rows of loads within a range of blocks, each once, in order of blocks.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = read_ledger(connection, database, from_block=from_block, to_block=to_block)
    return of_these(found, loads)


def summed(rows: Sequence[LedgerRow]) -> Manifest:
    """The manifest of several segments together."""
    total: Manifest = {}
    for row in rows:
        for table, (count, checksum) in row.manifest().items():
            before = total.get(table, (0, 0))
            total[table] = (before[0] + count, (before[1] + checksum) & _MASK)
    return total


def stored(connection: Connection, source: str, table: Table, where: str) -> tuple[int, int]:
    """(rows, checksum) of the rows of `source` that meet `where`.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    (found,) = connection.execute(
        f"SELECT count(), {checksum_sql(table)} FROM {source} WHERE {where}"
    )
    return int(found[0]), int(found[1]) & _MASK


def copy_rows(
    connection: Connection, target: str, source: str, table: Table, load_id: int | None, where: str
) -> None:
    """``INSERT INTO target SELECT … FROM source WHERE …``, under a new load_id if one is given.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    columns = ", ".join(spec.name for spec in table.columns)
    own = "load_id" if load_id is None else f"toUInt64({load_id})"
    connection.execute(
        f"INSERT INTO {target} ({columns}, load_id) "
        f"SELECT {columns}, {own} FROM {source} WHERE {where}",
        settings=INSERT_SELECT,
    )


def of_loads(loads: Collection[int]) -> str:
    """``load_id IN (…)``."""
    return f"load_id IN {id_list(sorted(loads))}"


def differing(asked: Mapping[str, tuple[int, int]], table: str, got: tuple[int, int]) -> bool:
    """Whether a table holds something else than its manifest says."""
    return asked.get(table, (0, 0)) != got
