"""Fixtures: one real embedded ClickHouse for the whole session, a fresh database for each test.

`clickhouse_server` is session-scoped; `database` gives a connection whose default database is
new and empty and is dropped, with its siblings (`<name>_safe`, …), after the test.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from infra.clickhouse.server import EmbeddedServer
from sinks.connection import Connection, Endpoint


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A running embedded server, shared by all tests: never stop or restart it."""
    server = EmbeddedServer(tmp_path_factory.mktemp("clickhouse") / "data", chain="test")
    with server:
        yield server


@pytest.fixture
def endpoint(clickhouse_server: EmbeddedServer) -> Iterator[Endpoint]:
    """The endpoint of a database that is made for this test and dropped after it."""
    name = f"t{secrets.token_hex(6)}"
    with Connection(clickhouse_server.endpoint()) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield clickhouse_server.endpoint(database=name)
        listed = admin.execute(
            "SELECT name FROM system.databases WHERE startsWith(name, %(name)s)", {"name": name}
        )
        for (database,) in listed:
            admin.execute(f"DROP DATABASE {database} SYNC")


@pytest.fixture
def database(endpoint: Endpoint) -> Iterator[Connection]:
    """A connection to a database that is made for this test and dropped after it."""
    with Connection(endpoint) as connection:
        yield connection
