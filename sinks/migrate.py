"""A database as it stands in, a database of this version's layout out; forward only.

Control tables follow numbered SQL files, each applied once and recorded with its checksum. Data
tables and views follow the declarations: missing ones are made, changed layouts are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

from schemas.chains import ChainFacts
from schemas.errors_sinks import DatabaseNewer, GridChanged, LayoutChanged, MigrationChanged
from schemas.tables import Table
from sinks import views
from sinks.connection import Connection
from sinks.ddl import CREATE_SETTINGS, OPEN, SEALED, EngineFamily, create_table, layout_hash

MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    number: int
    """Its number; they are applied in this order."""
    name: str
    """Its name without number and suffix."""
    text: str
    """Its SQL, with ``$database``, ``$merge_tree`` and ``$on_cluster`` to fill in."""

    @property
    def checksum(self) -> str:
        """Hash of the text."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()

    def statements(self, substitutions: dict[str, str]) -> list[str]:
        """Its statements, filled in."""
        text = re.sub(r"^--.*$", "", self.text, flags=re.MULTILINE)
        filled = Template(text).substitute(substitutions)
        return [part.strip() for part in filled.split(";\n") if part.strip(" \n;")]


def load_migrations() -> list[Migration]:
    """The shipped migrations in order."""
    found = [
        Migration(int(match[1]), match[2], entry.read_text("utf-8"))
        for entry in resources.files("sinks").joinpath("migrations").iterdir()
        if (match := MIGRATION.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.number)


def prepare_database(
    connection: Connection,
    database: str,
    tables: Sequence[Table],
    chain: ChainFacts,
    chain_id: int,
    *,
    family: EngineFamily | None = None,
) -> None:
    """Make, or bring up to date, a chain's database: control tables, data tables, views, functions.

    Parameters
    ----------
    tables
        Every declared table: the core tables, the events' tables, `decode_failures`.
    chain
        Its name, and the grid that partitions follow.
    chain_id
        The id that the node answered.

    Raises
    ------
    DatabaseNewer, MigrationChanged, GridChanged, LayoutChanged
    HeadraceError
        Another of HR-40xx.
    """
    family = family or EngineFamily()
    migrate(connection, database, load_migrations(), family)
    _record_chain(connection, database, chain, chain_id)
    views.create_functions(connection, family)
    recorded = _recorded_layouts(connection, database)
    made = []
    for table in tables:
        asked = layout_hash(table, chain.partition_blocks)
        stands = recorded.get(table.name)
        if stands is not None and stands != asked:
            raise LayoutChanged(table=f"{database}.{table.name}", detail=f"{stands} → {asked}")
        if stands is None:
            for suffix in (OPEN, SEALED):
                connection.execute(
                    create_table(database, table, suffix, chain.partition_blocks, family),
                    settings=CREATE_SETTINGS,
                )
            made.append((table.name, asked))
    _record_layouts(connection, database, made)
    _create_views(
        connection,
        database,
        views.database_views(database, tables, chain.partition_blocks, family),
        recorded,
        family,
    )


def migrate(
    connection: Connection,
    database: str,
    migrations: Sequence[Migration],
    family: EngineFamily,
) -> list[int]:
    """Apply the migrations that the database has not seen.

    Returns
    -------
    list of int
        The numbers applied.

    Raises
    ------
    DatabaseNewer
        If it has seen one that is not among `migrations`.
    MigrationChanged
        If one that it has seen had another text.
    """
    connection.execute(f"CREATE DATABASE IF NOT EXISTS {database}{family.on_cluster}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {database}.schema_migrations{family.on_cluster} "
        "(number UInt32, name String, checksum String, "
        "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
        f"ENGINE = {family.merge_tree} ORDER BY number COMMENT 'Applied migrations'"
    )
    rows = connection.execute(f"SELECT number, checksum FROM {database}.schema_migrations")
    applied: dict[int, str] = dict(rows)
    known = max(migration.number for migration in migrations)
    if applied and max(applied) > known:
        raise DatabaseNewer(database=database, found=max(applied), known=known)
    done = []
    for migration in migrations:
        if migration.number in applied:
            if applied[migration.number] != migration.checksum:
                raise MigrationChanged(number=migration.number, database=database)
            continue
        for statement in migration.statements(family.substitutions(database)):
            connection.execute(statement)
        row = (migration.number, migration.name, migration.checksum)
        columns = ("number", "name", "checksum")
        connection.insert_rows(f"{database}.schema_migrations", columns, [row])
        done.append(migration.number)
    return done


def _record_chain(connection: Connection, database: str, chain: ChainFacts, chain_id: int) -> None:
    """Write the chain's facts once; refuse another grid or chain afterwards."""
    asked = (chain.name, chain_id, chain.segment_blocks, chain.partition_blocks)
    columns = ("chain", "chain_id", "segment_blocks", "partition_blocks")
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM {database}.chain_facts")
    if not rows:
        connection.insert_rows(f"{database}.chain_facts", columns, [asked])
    else:
        check_grid(database, rows[0], asked)


Grid = tuple[str, int, int, int]
"""A chain's name and id, its blocks a segment and a partition."""


def check_grid(database: str, stored: Grid, asked: Grid) -> None:
    """Refuse a database of another chain or grid.

    Raises
    ------
    GridChanged
    """
    if tuple(stored) != asked:
        texts = [
            f"{chain} (chain {chain_id}) in segments of {segment} and partitions of {partition} "
            "blocks"
            for chain, chain_id, segment, partition in (stored, asked)
        ]
        raise GridChanged(database=database, stored=texts[0], asked=texts[1])


def _recorded_layouts(connection: Connection, database: str) -> dict[str, str]:
    """The newest layout hash of each table and view."""
    rows = connection.execute(
        f"SELECT table_name, argMax(layout_hash, recorded_at) FROM {database}.table_layouts "
        "GROUP BY table_name"
    )
    return dict(rows)


def _record_layouts(
    connection: Connection, database: str, layouts: Iterable[tuple[str, str]]
) -> None:
    columns = ("table_name", "layout_hash")
    connection.insert_rows(f"{database}.table_layouts", columns, list(layouts))


def _create_views(
    connection: Connection,
    database: str,
    wanted: Sequence[views.View],
    recorded: dict[str, str],
    family: EngineFamily,
) -> None:
    """Make the views that are missing or were made by another version."""
    digests = {
        view.record: hashlib.blake2b(view.sql.encode(), digest_size=8).hexdigest()
        for view in wanted
    }
    missing = [view for view in wanted if recorded.get(view.record) != digests[view.record]]
    for needed in dict.fromkeys(name for view in missing for name in view.databases):
        connection.execute(f"CREATE DATABASE IF NOT EXISTS {needed}{family.on_cluster}")
    for view in missing:
        connection.execute(view.sql)
    made = [(view.record, digests[view.record]) for view in missing]
    _record_layouts(connection, database, made)
    if made:
        views.refresh_chains(connection, family)
