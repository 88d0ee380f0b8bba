"""Declared tables in, the views users query out: one legal chain, at one block, in all of them.

Every view embeds the same scalar subqueries, letter for letter. ClickHouse evaluates a scalar
subquery once a query, however often it occurs, so that all views of a query read one canon row.
No view uses FINAL, and none shows `load_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.tables import Table
from sinks.connection import Connection
from sinks.ddl import LOAD_ID, OPEN, SEALED, EngineFamily, quoted

CHAINS_DATABASE = "chains"
FINALITIES = {"": "head", "_safe": "safe", "_finalized": "finalized"}
"""Suffix of the database, and the field of the canon row that bounds what it shows."""

_OWN = {"chain": "String", "chain_id": "UInt64"}
"""What a view of `chains` adds to a table's columns, with their types."""

CANON_FIELDS = (
    "generation", "seq", "floor", "head", "safe", "finalized", "straddling", "sealed", "loads",
)  # fmt: skip
"""What the views read of the canon row, in this order."""

AS_OF_SETTING = "query_cache_tag"
AS_OF_PREFIX = "as_of="
"""``SETTINGS query_cache_tag = 'as_of=3:17'`` asks as of generation 3, seq 17. The setting is
ClickHouse's own, harmless, and a text: the embedded engine takes no settings of ours. Should a user
switch the query cache on, the tag keeps the states apart there, too."""

FUNCTIONS = {
    # The inner conversion fails, and says the text, where it is not 0x and 40 (64) hex digits.
    # It is no throwIf because that is not folded into a constant, and so would not prune.
    "addr": "(text) -> toFixedString(unhex(substring(text, "
    "toUInt8(if(match(text, '^0x[0-9a-fA-F]{40}$'), '3', "
    "concat('not an address: ', text))))), 20)",
    "hash": "(text) -> toFixedString(unhex(substring(text, "
    "toUInt8(if(match(text, '^0x[0-9a-fA-F]{64}$'), '3', "
    "concat('not a hash: ', text))))), 32)",
    "hex0x": "(bytes) -> concat('0x', lower(hex(bytes)))",
}
"""SQL functions: ``addr('0x…')``, ``hash('0x…')``, and ``hex0x(column)`` back to text."""


@dataclass(frozen=True, slots=True)
class View:
    """One view's statement."""

    record: str
    """Under which name its hash is recorded."""
    databases: tuple[str, ...]
    """Databases that must exist before."""
    sql: str
    """``CREATE OR REPLACE VIEW …``."""


def canon_scalar(database: str) -> str:
    """The scalar subquery that picks and reads the canon row, as the tuple of `CANON_FIELDS`.

    The newest row, or the one that the query asks as of; where that is not there, it fails. Where
    the canon is empty it is (0, 0, 0, 0, NULL, NULL, false, [], []): then no load is visible.
    """
    asked = f"getSetting('{AS_OF_SETTING}')"
    is_asked = f"startsWith({asked}, '{AS_OF_PREFIX}')"
    name = f"concat('{AS_OF_PREFIX}', toString(generation), ':', toString(seq))"
    message = f"{database}.canon keeps no row of the asked as_of (generation:seq)"
    fields = ", ".join(CANON_FIELDS).replace("sealed", "arrayMap(id -> toString(id), sealed)")
    return (
        f"(SELECT if(throwIf(count() = 0 AND {is_asked}, {quoted(message)}) = 0, "
        "any(row), any(row)) "
        f"FROM (SELECT ({fields}) AS row FROM {database}.canon "
        f"WHERE NOT {is_asked} OR {asked} = {name} ORDER BY generation DESC, seq DESC LIMIT 1))"
    )


def canon_field(name: str) -> str:
    """A field of the scalar that a view calls `canon`."""
    return f"tupleElement(canon, {CANON_FIELDS.index(name) + 1})"


def table_view(database: str, table: Table, finality: str, family: EngineFamily) -> View:
    """The view `T` of one table in the database of one finality."""
    target = database if finality == "head" else f"{database}_{finality}"
    columns = ", ".join(spec.name for spec in table.columns)
    declared = ", ".join(f"{spec.name} {spec.kind.clickhouse_type}" for spec in table.columns)
    sealed, loads = canon_field("sealed"), canon_field("loads")
    bounds = f"block_number >= {canon_field('floor')} AND block_number <= {canon_field(finality)}"
    if finality == "head":
        # Where every visible load lies between floor and head, this folds away.
        bounds = f"(NOT {canon_field('straddling')} OR ({bounds}))"
    sql = (
        # With its columns declared ClickHouse need not analyse the query to find them: of 126
        # views that is half a CPU second at the first start.
        f"CREATE OR REPLACE VIEW {target}.{table.name}{family.on_cluster} ({declared}) AS\n"
        f"WITH {canon_scalar(database)} AS canon\n"
        f"SELECT {_gate(table)} FROM system.one WHERE isNull({canon_field('floor')})\n"
        "UNION ALL\n"
        f"SELECT {columns} FROM {database}.{table.name}{SEALED}\n"
        # A part belongs to one partition: choosing parts is exact, and costs nothing per row.
        f"WHERE indexHint(_partition_id IN {sealed})\n"
        "UNION ALL\n"
        f"SELECT {columns} FROM {database}.{table.name}{OPEN}\n"
        f"WHERE _partition_id NOT IN {sealed} AND {LOAD_ID} IN {loads} AND {bounds}"
    )
    return View(f"view:{target}.{table.name}", (target,), sql)


def _gate(table: Table) -> str:
    """The columns of the branch that comes first, reads no table of ours and gives no row.

    ClickHouse takes a table's snapshot before it evaluates the scalars of that table's WHERE. A
    load or a seal that came in between would be asked for and not be there. This branch makes it
    read the canon row first; every snapshot of the query is younger than that.
    """
    return ", ".join(
        f"defaultValueOfTypeName({quoted(spec.kind.clickhouse_type)}) AS {spec.name}"
        for spec in table.columns
    )


def control_views(database: str, partition_blocks: int, family: EngineFamily) -> list[View]:
    """`status`, `loads` and `coverage`: what is visible, what is stored."""
    status = (
        f"CREATE OR REPLACE VIEW {database}.status{family.on_cluster} AS\n"
        f"WITH {canon_scalar(database)} AS canon\n"
        "SELECT generation, seq, at, floor, head, hex0x(head_hash) AS head_hash, safe, finalized, "
        "length(sealed) AS sealed_partitions, length(loads) AS open_loads\n"
        f"FROM {database}.canon WHERE generation = {canon_field('generation')} "
        f"AND seq = {canon_field('seq')} LIMIT 1"
    )
    loads = (
        f"CREATE OR REPLACE VIEW {database}.loads{family.on_cluster} AS\n"
        f"WITH {canon_scalar(database)} AS canon\n"
        "SELECT load_id, stream, lane, from_block, to_block, hex0x(last_hash) AS last_hash, "
        "content_version, generation, tables, rows, inserted_at,\n"
        f"load_id IN {canon_field('loads')} AS is_visible,\n"
        f"has({canon_field('sealed')}, toString(intDiv(from_block, {partition_blocks}))) "
        "AS is_sealed\n"
        f"FROM {database}.ledger"
    )
    coverage = (
        f"CREATE OR REPLACE VIEW {database}.coverage{family.on_cluster} AS\n"
        "SELECT stream, content_version, min(from_block) AS from_block, "
        "max(to_block) AS to_block, count() AS segments\n"
        "FROM (\n"
        "    SELECT stream, content_version, from_block, to_block,\n"
        "    sum(is_start) OVER (PARTITION BY stream, content_version "
        "ORDER BY from_block, to_block ROWS UNBOUNDED PRECEDING) AS island\n"
        "    FROM (\n"
        "        SELECT stream, content_version, from_block, to_block,\n"
        "        from_block > 1 + max(to_block) OVER (PARTITION BY stream, content_version "
        "ORDER BY from_block, to_block ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) "
        "AS is_start\n"
        "        FROM (SELECT DISTINCT stream, content_version, from_block, to_block "
        f"FROM {database}.ledger)\n"
        "    )\n"
        ")\n"
        "GROUP BY stream, content_version, island\n"
        "ORDER BY stream, content_version, from_block"
    )
    return [
        View(f"view:{database}.{name}", (database,), sql)
        for name, sql in (("status", status), ("loads", loads), ("coverage", coverage))
    ]


def database_views(
    database: str,
    tables: Sequence[Table],
    partition_blocks: int,
    family: EngineFamily | None = None,
) -> list[View]:
    """Every view of a chain: its tables in three finalities, and the control views."""
    family = family or EngineFamily()
    views = [
        table_view(database, table, finality, family)
        for finality in FINALITIES.values()
        for table in tables
    ]
    return [*views, *control_views(database, partition_blocks, family)]


def create_functions(connection: Connection, family: EngineFamily | None = None) -> None:
    """Make or replace the SQL functions of `FUNCTIONS`.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    cluster = (family or EngineFamily()).on_cluster
    for name, body in FUNCTIONS.items():
        connection.execute(f"CREATE OR REPLACE FUNCTION {name}{cluster} AS {body}")


def chains_view(table: str, columns: Mapping[str, str], chains: Sequence[tuple[str, int]]) -> str:
    """The view that unions a table over chains.

    Parameters
    ----------
    columns
        The columns that every one of the chains has, with their ClickHouse types.
    chains
        (database, chain id); each chain's part is a snapshot, the union is not one.
    """
    parts = []
    for database, chain_id in chains:
        own = dict(zip(_OWN, (quoted(database), f"toUInt64({chain_id})"), strict=True))
        # A transaction has a chain_id of its own, signed by its sender: that one stays.
        added = [f"{value} AS {name}" for name, value in own.items() if name not in columns]
        parts.append(f"SELECT {', '.join([*added, *columns])} FROM {database}.{table}")
    body = "\nUNION ALL\n".join(parts)
    types = {name: type_ for name, type_ in _OWN.items() if name not in columns} | dict(columns)
    # Declared, as those of a chain's own views are, so that the query need not be analysed.
    declared = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    return f"CREATE OR REPLACE VIEW {CHAINS_DATABASE}.{table} ({declared}) AS\n{body}"


def refresh_chains(connection: Connection, family: EngineFamily | None = None) -> list[str]:
    """Make the views of the database `chains` anew from every chain that the server holds.

    Returns
    -------
    list of str
        The names of the views.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    cluster = (family or EngineFamily()).on_cluster
    connection.execute(f"CREATE DATABASE IF NOT EXISTS {CHAINS_DATABASE}{cluster}")
    databases = connection.execute(
        "SELECT database FROM system.tables WHERE name = 'chain_facts' ORDER BY database"
    )
    chains: list[tuple[str, int]] = []
    for (database,) in databases:
        rows = connection.execute(f"SELECT chain_id FROM {database}.chain_facts")
        chains += [(database, chain_id) for (chain_id,) in rows]
    names = [database for database, _ in chains]
    if not names:
        return []
    listed = connection.execute(
        "SELECT table, name, groupArray((database, type)) FROM system.columns "
        "WHERE database IN %(names)s AND (database, table) IN "
        "(SELECT database, name FROM system.tables WHERE engine = 'View') "
        "GROUP BY table, name ORDER BY table, min(position)",
        {"names": names},
    )
    columns: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for table, name, places in listed:
        columns.setdefault(table, []).append((name, dict(places)))
    for table, of_table in columns.items():
        connection.execute(_union_sql(table, of_table, chains))
    return sorted(columns)


def _union_sql(
    table: str, columns: Sequence[tuple[str, dict[str, str]]], chains: Sequence[tuple[str, int]]
) -> str:
    """The union over the chains that have the table, of the columns that agree in type."""
    having = [pair for pair in chains if any(pair[0] in places for _, places in columns)]
    shared = {
        name: next(iter(places.values()))
        for name, places in columns
        if len(places) == len(having) and len(set(places.values())) == 1
    }
    return chains_view(table, shared, having)
