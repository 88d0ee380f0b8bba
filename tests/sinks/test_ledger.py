from __future__ import annotations

from datetime import timedelta

from schemas.chains import load_chains
from schemas.tables import CORE_TABLES
from sinks.connection import Connection
from sinks.ledger import LedgerRow, append_ledger, read_ledger
from sinks.migrate import prepare_database

CHAIN = load_chains()["local"].resized(10, 100)


def row(from_block: int, load_id: int = 1, **changes: object) -> LedgerRow:
    fields: dict[str, object] = {
        "stream": "logs",
        "lane": "history",
        "from_block": from_block,
        "to_block": from_block + 9,
        "last_hash": bytes([0, 255]) * 16,
        "content_version": "v1",
        "generation": 3,
        "load_id": load_id,
        "tables": ("logs",),
        "rows": (7,),
        "checksums": (2**64 - 1,),
    }
    return LedgerRow(**{**fields, **changes})  # type: ignore[arg-type]


def prepared(connection: Connection) -> str:
    name = connection.endpoint.database
    prepare_database(connection, name, CORE_TABLES, CHAIN, 1337)
    return name


def test_rows_come_back_as_they_were_written(database: Connection) -> None:
    name = prepared(database)
    written = [
        row(0, 2**64 - 1),
        row(
            10,
            5,
            stream="blocks",
            tables=("a", "b"),
            rows=(1, 0),
            checksums=(0, 2**63),
            lane="head",
            to_block=10,
        ),
    ]
    append_ledger(database, name, written)
    back = read_ledger(database, name)
    assert all(r.inserted_at is not None for r in back)
    bare = {r.load_id: LedgerRow(*(getattr(r, f) for f in LedgerRow.__slots__[:-1])) for r in back}
    assert bare == {r.load_id: r for r in written}


def test_a_position_and_a_range_narrow_what_is_read(database: Connection) -> None:
    name = prepared(database)
    append_ledger(database, name, [row(0, 1)])
    first = read_ledger(database, name)[0]
    assert first.inserted_at is not None
    append_ledger(database, name, [row(10, 2), row(20, 3, stream="blocks")])
    later = read_ledger(database, name, since=first.inserted_at + timedelta(microseconds=1))
    assert [r.load_id for r in later] == [2, 3]
    assert [r.load_id for r in read_ledger(database, name, stream="blocks")] == [3]
    assert [r.load_id for r in read_ledger(database, name, from_block=9, to_block=10)] == [1, 2]


def test_coverage_joins_neighbours_and_keeps_gaps(database: Connection) -> None:
    name = prepared(database)
    rows = [row(0, 1), row(10, 2), row(10, 9), row(20, 3), row(50, 4), row(60, 5, to_block=60)]
    append_ledger(database, name, rows)
    covered = database.execute(f"SELECT from_block, to_block, segments FROM {name}.coverage")
    assert covered == [(0, 29, 3), (50, 60, 2)]
