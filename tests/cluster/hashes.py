"""A database in, a hash of every table's rows in order out."""

from __future__ import annotations

import hashlib

from schemas.tables import Table
from sinks.connection import Connection
from tests.e2e.running import tables


def table_hash(connection: Connection, table: Table) -> tuple[int, str]:
    """(rows, hash) of a view, every column of it in the order of its identity."""
    names = ", ".join(spec.name for spec in table.columns)
    rows = connection.execute(
        f"SELECT {names} FROM {table.name} ORDER BY {', '.join(table.identity)}", as_bytes=True
    )
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return len(rows), digest.hexdigest()


def hashes(connection: Connection) -> dict[str, tuple[int, str]]:
    """Of every table."""
    return {table.name: table_hash(connection, table) for table in tables()}
