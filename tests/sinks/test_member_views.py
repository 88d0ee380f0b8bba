"""A factory's members are those it created, in the same snapshot as their events."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.chains import load_chains
from schemas.tables import ColumnSpec, event_table
from sinks.connection import Connection
from sinks.ddl import LOAD_ID, OPEN
from sinks.member_views import Members, create_member_views
from sinks.migrate import prepare_database

FACTORY, OTHER_FACTORY = b"\xfa" * 20, b"\xfb" * 20
POOL, STRANGER = b"\x01" * 20, b"\x02" * 20
CREATED = event_table("pools", "A pool created.", (ColumnSpec("pool", "bytes20", "The pool."),))
SWAPS = event_table("pool_swaps", "A swap.", (ColumnSpec("amount", "u64", "How much."),))


def insert(connection: Connection, table: str, rows: list[dict[str, object]]) -> None:
    columns = list(rows[0])
    connection.insert_rows(table + OPEN, columns, [list(row.values()) for row in rows])


def test_only_the_factorys_own_creations_are_members(database: Connection) -> None:
    name = database.endpoint.database
    chain = load_chains()["local"].resized(10, 100)
    prepare_database(database, name, [CREATED, SWAPS], chain, 1337)
    members = Members(("pool_swaps",), FACTORY, "pools", "pool")
    assert create_member_views(database, name, [members]) == ["pool_swaps_members"]
    place = {"block_number": 5, "block_hash": bytes(32), LOAD_ID: 1}
    insert(
        database,
        "pools",
        [
            place | {"address": FACTORY, "pool": POOL},
            place | {"address": OTHER_FACTORY, "pool": STRANGER},
        ],
    )
    insert(
        database,
        "pool_swaps",
        [place | {"address": POOL, "amount": 7}, place | {"address": STRANGER, "amount": 8}],
    )
    query = "SELECT amount FROM {}.pool_swaps_members"
    assert database.execute(query.format(name)) == [], "no load is visible yet"
    columns = ["generation", "seq", "at", "floor", "head", "head_hash", "finalized", "loads"]
    row = (1, 1, datetime.now(UTC), 0, 5, bytes(32), 4, [1])
    database.insert_rows(f"{name}.canon", columns, [row])
    assert database.execute(query.format(name)) == [(7,)]
    assert database.execute(query.format(f"{name}_finalized")) == [], "block 5 is not final"
