"""A table's rows in ClickHouse in, columns out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.columns import ColumnBlock, from_python
from schemas.tables import Table
from sinks.connection import Connection


def read_columns(
    connection: Connection,
    table: Table,
    where: str,
    params: Mapping[str, object] | None = None,
    *,
    settings: Mapping[str, object] | None = None,
) -> ColumnBlock:
    """The rows of a view that meet a condition, as columns in the table's order of identity.

    Parameters
    ----------
    connection
        Its default database holds the view.
    table
        The view's declaration.
    where
        A condition on its columns, with ``%(name)s`` for `params`.
    settings
        ClickHouse settings of the query.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    names = ", ".join(_expression(spec.name, spec.kind_text) for spec in table.columns)
    sql = f"SELECT {names} FROM {table.name} WHERE {where} ORDER BY {', '.join(table.identity)}"
    rows = connection.execute(sql, params, settings=settings, as_bytes=True)
    values: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(table.columns)
    columns = {
        spec.name: from_python(spec.kind, list(column))
        for spec, column in zip(table.columns, values, strict=True)
    }
    return ColumnBlock(table.name, len(rows), columns)


def _expression(name: str, kind: str) -> str:
    if kind == "time":
        return f"toUnixTimestamp({name})"
    if kind.startswith("enum8"):
        return f"CAST({name}, 'Int8')"
    return name
