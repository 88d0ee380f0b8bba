"""Who may use the views, the union of chains, and the SQL functions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from infra.clickhouse.server import EmbeddedServer
from schemas.errors_sinks import AccessRefused, QueryRefused
from sinks import views
from sinks.connection import Connection
from sinks.migrate import prepare_database
from sinks.writer import Writer
from tests.sinks.published import AS_OF, CANON, CHAIN, Chain
from tests.sinks.segments_of import TABLES, logs_of


@pytest.fixture
def chain(database: Connection) -> Chain:
    return Chain(database)


@pytest.fixture
def analyst(clickhouse_server: EmbeddedServer, database: Connection) -> Iterator[Connection]:
    name = database.endpoint.database
    with Connection(clickhouse_server.endpoint("analyst", name)) as connection:
        yield connection


def test_the_analyst_reads_everything_and_changes_nothing(
    chain: Chain, analyst: Connection
) -> None:
    segment = logs_of(0, 9)
    name = chain.publish(9, [chain.load(segment)])
    chain.publish(9, [])
    assert analyst.value("SELECT count() FROM logs") == 0
    settings = {AS_OF: f"as_of={name}"}
    assert analyst.value("SELECT count() FROM logs", settings=settings) == 20
    in_sql = f"SELECT count() FROM logs SETTINGS {AS_OF} = 'as_of={name}'"
    assert analyst.value(in_sql) == 20
    assert analyst.execute("SELECT head FROM status") == [(9,)]
    assert analyst.value("SELECT count() FROM coverage") == 1
    for sql in (
        "INSERT INTO canon (generation) VALUES (9)",
        "CREATE TABLE x (n UInt8) ENGINE = Memory",
        "DROP TABLE logs_open",
        "ALTER TABLE logs_open DELETE WHERE 1",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'n UInt8')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM system.users",
        "SYSTEM STOP MERGES logs_open",
        f"SELECT * FROM remote('127.0.0.1:{analyst.endpoint.port}', 'system', 'one')",
        "SET max_execution_time = 0",
        "SET max_memory_usage = 100000000000",
        "SET readonly = 0",
    ):
        with pytest.raises((AccessRefused, QueryRefused)):
            analyst.execute(sql)


def test_the_union_of_chains(chain: Chain) -> None:
    segment = logs_of(0, 9)
    chain.publish(9, [chain.load(segment)])
    other = f"{chain.name}_other"
    prepare_database(chain.connection, other, TABLES[:4], CHAIN, 5)
    second = Writer(chain.connection, other, TABLES[:4], CHAIN.partition_blocks)
    load = second.write([logs_of(0, 9, rows=7)])
    values = (1, 1, datetime.now(UTC), 0, 9, bytes(32), None, None, [], [load.load_id], True)
    chain.connection.insert_rows(f"{other}.canon", CANON, [values])
    rows = chain.connection.execute(
        "SELECT chain, chain_id, count() FROM chains.logs WHERE chain IN %(names)s "
        "GROUP BY chain, chain_id ORDER BY chain_id",
        {"names": [chain.name, other]},
    )
    assert rows == [(other, 5, 7), (chain.name, 1337, 20)]
    assert chain.connection.value("SELECT count() FROM chains.plums") == 0
    chain.connection.execute(f"DROP DATABASE {other} SYNC")
    views.refresh_chains(chain.connection)


@pytest.mark.parametrize("text", ["0x" + "ab" * 20, "0x" + "AB" * 20, "0x" + "0" * 40])
def test_addresses_go_to_bytes_and_back(text: str, database: Connection) -> None:
    views.create_functions(database)
    assert database.value(f"SELECT hex0x(addr('{text}'))") == text.lower()
    assert database.value(f"SELECT toTypeName(addr('{text}'))") == "FixedString(20)"
    long = "0x" + text[2:4] * 32
    assert database.value(f"SELECT hex0x(hash('{long}'))") == long.lower()


@pytest.mark.parametrize(
    "text", ["", "0x", "ab" * 21, "0x" + "ab" * 19, "0x" + "ab" * 21, "0x" + "zz" * 20, "3"]
)
def test_a_malformed_address_fails_and_is_named(text: str, database: Connection) -> None:
    views.create_functions(database)
    with pytest.raises(QueryRefused):
        database.value(f"SELECT addr('{text}')")
