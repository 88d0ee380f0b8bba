"""A stored row in, another one in its place out: what an audit must notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.kinds import Kind
from schemas.tables import Table
from sinks.canon_table import id_list, read_canon
from sinks.connection import Connection
from sinks.ddl import CREATE_SETTINGS, OPEN, SEALED, quoted

TAKEN = "tampered"


class Tamperer:
    """Changes stored rows behind the back of everybody, and puts them back.

    Parameters
    ----------
    connection
        As the user that writes; its default database is the chain's.
    partition_blocks
        Blocks of a partition.
    """

    def __init__(self, connection: Connection, partition_blocks: int) -> None:
        self._connection = connection
        self._partition_blocks = partition_blocks
        row = read_canon(connection, connection.endpoint.database)
        assert row is not None
        self.row = row

    @contextmanager
    def restoring(self, *tables: Table) -> Iterator[None]:
        """Put the tables' parts back at the end, as they are now."""
        names = [table.name + suffix for table in tables for suffix in (OPEN, SEALED)]
        before = {name: self._partitions(name) for name in names}
        for name, partitions in before.items():
            self._run(f"CREATE TABLE kept_{name} AS {name}")
            for partition in partitions:
                self._run(f"ALTER TABLE kept_{name} ATTACH PARTITION ID '{partition}' FROM {name}")
        try:
            yield
        finally:
            for name, partitions in before.items():
                for partition in partitions:
                    self._run(
                        f"ALTER TABLE {name} REPLACE PARTITION ID '{partition}' FROM kept_{name}"
                    )
                for partition in self._partitions(name) - partitions:
                    self._run(f"ALTER TABLE {name} DROP PARTITION ID '{partition}'")
                self._run(f"DROP TABLE kept_{name} SYNC")

    def place(self, table: Table, block_number: int) -> str:
        """The table that holds the visible rows of a block."""
        sealed = block_number // self._partition_blocks in self.row.sealed
        return table.name + (SEALED if sealed else OPEN)

    def visible(self, table: Table, where: str) -> tuple[str, str]:
        """Where the first visible row stands: its table, and a condition that only it meets."""
        identity = ", ".join(_text(table, name) for name in table.identity)
        rows = self._connection.execute(
            f"SELECT block_number, {identity} FROM {table.name} WHERE {where} "
            f"ORDER BY {', '.join(table.identity)} LIMIT 1"
        )
        assert rows, f"no row of {table.name} has {where}"
        number, *values = rows[0]
        meets = [
            f"{_text(table, name)} = '{value}'"
            for name, value in zip(table.identity, values, strict=True)
        ]
        place = self.place(table, number)
        if place.endswith(OPEN):
            meets.append(f"load_id IN {id_list(self.row.loads)}")
        return place, " AND ".join(meets)

    def change(self, place: str, where: str, **columns: str) -> None:
        """Put rows with other values in the place of those that meet a condition."""
        replaced = ", ".join(f"({value}) AS {name}" for name, value in columns.items())
        self._run(
            f"CREATE TABLE {TAKEN} ENGINE = Memory AS "
            f"SELECT * REPLACE ({replaced}) FROM (SELECT * FROM {place} WHERE {where})"
        )
        try:
            assert self._connection.value(f"SELECT count() FROM {TAKEN}")
            self.delete(place, where)
            self._run(f"INSERT INTO {place} SELECT * FROM {TAKEN}")
        finally:
            self._run(f"DROP TABLE {TAKEN} SYNC")

    def double(self, place: str, where: str) -> None:
        """Store rows once more under the same load."""
        self._run(f"INSERT INTO {place} SELECT * FROM {place} WHERE {where}")

    def delete(self, place: str, where: str) -> None:
        """Take rows away."""
        self._run(f"ALTER TABLE {place} DELETE WHERE {where} SETTINGS mutations_sync = 2")

    def _run(self, sql: str) -> None:
        self._connection.execute(sql, settings=CREATE_SETTINGS)

    def _partitions(self, name: str) -> set[str]:
        rows = self._connection.execute(
            "SELECT DISTINCT partition_id FROM system.parts WHERE active "
            "AND database = currentDatabase() AND table = %(name)s",
            {"name": name},
        )
        return {partition for (partition,) in rows}


def other_value(kind: Kind, name: str) -> str:
    """SQL of another value of a column; of NULL, a value."""
    return f"CAST({_other(kind, name)}, {quoted(kind.clickhouse_type)})"


def _other(kind: Kind, value: str) -> str:
    if kind.shape == "nullable":
        (inner,) = kind.children
        # A zero in place of NULL is what some nodes say themselves: another value than that.
        default = other_value(inner, f"defaultValueOfTypeName({quoted(inner.clickhouse_type)})")
        return f"if(isNull({value}), {default}, {other_value(inner, f'assumeNotNull({value})')})"
    if kind.text.startswith("bytes") and kind.shape == "fixed":
        last = f"bitXor(reinterpretAsUInt8(substring({value}, {kind.width}, 1)), 1)"
        return f"concat(substring({value}, 1, {kind.width - 1}), char({last}))"
    if kind.shape == "list":
        return f"arrayResize({value}, length({value}) + 1)"
    if kind.shape == "ragged":
        return f"concat({value}, 'x')"
    if kind.text.startswith("enum8"):
        return f"if(CAST({value}, 'Int8') = 0, 1, 0)"
    return f"NOT {value}" if kind.text == "bool" else f"{value} + 1"


def _text(table: Table, name: str) -> str:
    """SQL of an identity's column as text."""
    return f"hex({name})" if table.column(name).kind.shape == "fixed" else f"toString({name})"
