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
    acknowledged = {line.load_id for line in ledger}
    for load in row.loads:
        if load not in acknowledged:
            yield row.floor, f"load {load} is visible and has no ledger row"
    streams: dict[str, list[Table]] = {}
    for table in tables:
        streams.setdefault(table.stream, []).append(table)
    for stream in streams.values():
        yield from _check_stream(connection, database, stream, row, ledger)


def _check_stream(
    connection: Connection,
    database: str,
    tables: Sequence[Table],
    row: CanonRow,
    ledger: Sequence[LedgerRow],
) -> Iterator[tuple[int, str]]:
    """The tables that the same loads fill."""
    said = {table.name: _said(ledger, table.name) for table in tables}
    sealed: dict[str, Manifest] = {}
    ids = ", ".join(f"'{partition}'" for partition in row.sealed)
    for table in tables:
        where = f"load_id IN {id_list(row.loads)}"
        stored = _stored(connection, f"{database}.{table.name}{OPEN}", table, where)
        loads = [load for load in row.loads if load in said[table.name]]
        yield from _compare(table.name + OPEN, stored, said[table.name], loads)
        where = f"_partition_id IN ({ids})" if ids else "0"
        sealed[table.name] = _stored(connection, f"{database}.{table.name}{SEALED}", table, where)
    # A load whose rows are gone from one table is known by its rows in another.
    loads = sorted(set().union(*sealed.values()))
    for name, stored in sealed.items():
        yield from _compare(name + SEALED, stored, said[name], loads)


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
            if count:
                yield first, f"{name}: load {load} has {count} rows and no ledger row"
            continue
        wanted = said[load]
        if (count, checksum) != wanted[:2]:
            kind = "other rows" if count == wanted[0] else f"{count} rows"
            yield wanted[2], f"{name}: load {load} has {kind} where its manifest has {wanted[0]}"
