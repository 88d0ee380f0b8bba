"""Factories in, views of the events of just the contracts that they created out.

Decoding knows layouts only, so a factory contract's tables hold the events of every address that
emits them. Who is a member is itself a fact of the chain, in the table of the factory's creations:
it is joined on read, at the same block as everything else, and a reorg changes both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sinks.connection import Connection
from sinks.ddl import EngineFamily
from sinks.views import FINALITIES

MEMBERS = "_members"
"""Suffix of the view beside each of a factory contract's tables."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one factory, and the tables that hold their events."""

    tables: tuple[str, ...]
    """Tables with the events of every address."""
    factory: bytes
    """The factory's address, 20 bytes."""
    creations_table: str
    """The table of its creations."""
    creations_column: str
    """Its column with the addresses created."""


def create_member_views(
    connection: Connection,
    database: str,
    members: Sequence[Members],
    family: EngineFamily | None = None,
) -> list[str]:
    """Make `T_members` beside each table of each factory, in every finality.

    Returns
    -------
    list of str
        The views' names, without their databases.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    cluster = (family or EngineFamily()).on_cluster
    names = []
    for each in members:
        for table in each.tables:
            names.append(table + MEMBERS)
            for suffix in FINALITIES:
                place = database + suffix
                connection.execute(
                    f"CREATE OR REPLACE VIEW {place}.{table}{MEMBERS}{cluster} AS\n"
                    f"SELECT * FROM {place}.{table} WHERE address IN (\n"
                    f"    SELECT {each.creations_column} FROM {place}.{each.creations_table}\n"
                    f"    WHERE address = unhex('{each.factory.hex()}'))"
                )
    return names
