"""A database and its declarations in, whether `headrace migrate` has made it as declared out."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.chains import ChainFacts
from schemas.errors_roles import DatabaseNotPrepared
from schemas.errors_sinks import DatabaseNewer, LayoutChanged, UnknownTable
from schemas.tables import Table
from sinks.connection import Connection
from sinks.ddl import layout_hash
from sinks.migrate import check_grid, load_migrations


def check_prepared(
    connection: Connection, database: str, tables: Sequence[Table], facts: ChainFacts
) -> int:
    """Refuse a database that is not as declared.

    Parameters
    ----------
    connection
        To the server, without a default database.
    database
        The chain's database.
    tables
        Every declared table.
    facts
        The chain's grid.

    Returns
    -------
    int
        The chain id that the database is for.

    Raises
    ------
    DatabaseNotPrepared, DatabaseNewer, GridChanged, LayoutChanged
    HeadraceError
        Another of HR-40xx.
    """

    def unprepared(reason: str) -> DatabaseNotPrepared:
        address = connection.endpoint.address
        return DatabaseNotPrepared(database=database, address=address, reason=reason)

    try:
        newest = int(connection.value(f"SELECT max(number) FROM {database}.schema_migrations"))
        stands = dict(
            connection.execute(
                "SELECT table_name, argMax(layout_hash, recorded_at) "
                f"FROM {database}.table_layouts GROUP BY table_name"
            )
        )
        chains = connection.execute(
            f"SELECT chain, chain_id, segment_blocks, partition_blocks FROM {database}.chain_facts"
        )
    except UnknownTable:
        raise unprepared("it has no control tables") from None
    known = max(migration.number for migration in load_migrations())
    if newest > known:
        raise DatabaseNewer(database=database, found=newest, known=known)
    if newest < known:
        raise unprepared(f"it is at migration {newest} of {known}")
    if not chains:
        raise unprepared("it does not say which chain it is for")
    (stored,) = chains
    check_grid(
        database, stored, (facts.name, stored[1], facts.segment_blocks, facts.partition_blocks)
    )
    for table in tables:
        asked = layout_hash(table, facts.partition_blocks)
        if table.name not in stands:
            raise unprepared(f"it has no table {table.name}")
        if stands[table.name] != asked:
            detail = f"{stands[table.name]} → {asked}"
            raise LayoutChanged(table=f"{database}.{table.name}", detail=detail)
    return int(stored[1])
