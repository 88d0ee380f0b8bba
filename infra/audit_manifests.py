"""A canon row in, what its loads and sealed partitions lack or have too much of out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.tables import Table
from sinks.canon_row import CanonRow
from sinks.canon_table import id_list
from sinks.checksum import checksum_sql
from sinks.connection import Connection
from sinks.ddl import OPEN, SEALED
from sinks.ledger import LedgerRow, read_ledger

_MASK = (1 << 64) - 1
Manifest = dict[int, tuple[int, int, int]]
"""(rows, checksum, first block) by load."""


def check_manifests(
    connection: Connection, database: str, tables: Sequence[Table], row: CanonRow
) -> Iterator[tuple[int, str]]:
    """Compare what is stored under each visible load with what the ledger says of it.

    Open loads are compared one by one; of a sealed partition every load whose rows it holds.

    Yields
    ------
    tuple of int and str
        First block of the load, and what is wrong.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    ledger = read_ledger(connection, database)
    for table in tables:
        said = _said(ledger, table.name)
        where = f"load_id IN {id_list(row.loads)}"
        stored = _stored(connection, f"{database}.{table.name}{OPEN}", table, where)
        loads = [load for load in row.loads if load in said]
        yield from _compare(table.name + OPEN, stored, said, loads)
        if row.sealed:
            ids = ", ".join(f"'{partition}'" for partition in row.sealed)
            where = f"_partition_id IN ({ids})"
            stored = _stored(connection, f"{database}.{table.name}{SEALED}", table, where)
            yield from _compare(table.name + SEALED, stored, said, list(stored))


def _said(ledger: Sequence[LedgerRow], table: str) -> Manifest:
    """What the ledger says of a table's rows, by load."""
    total: Manifest = {}
    for row in {(row.load_id, row.from_block): row for row in ledger}.values():
        manifest = row.manifest().get(table)
        if manifest is not None:
            count, checksum, first = total.get(row.load_id, (0, 0, row.from_block))
            total[row.load_id] = (
                count + manifest[0],
                (checksum + manifest[1]) & _MASK,
                min(first, row.from_block),
            )
    return total


def _stored(connection: Connection, source: str, table: Table, where: str) -> Manifest:
    rows = connection.execute(
        f"SELECT load_id, count(), {checksum_sql(table)}, min(block_number) "
        f"FROM {source} WHERE {where} GROUP BY load_id"
    )
    return {load: (count, checksum, first) for load, count, checksum, first in rows}


def _compare(
    name: str, stored: Manifest, said: Manifest, loads: Sequence[int]
) -> Iterator[tuple[int, str]]:
    for load in loads:
        count, checksum, first = stored.get(load, (0, 0, said.get(load, (0, 0, 0))[2]))
        if load not in said:
            yield first, f"{name}: load {load} has {count} rows and no ledger row"
            continue
        wanted = said[load]
        if (count, checksum) != wanted[:2]:
            kind = "other rows" if count == wanted[0] else f"{count} rows"
            yield wanted[2], f"{name}: load {load} has {kind} where its manifest has {wanted[0]}"
