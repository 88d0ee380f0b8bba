"""What we rely on in the engine of the chdb-core wheel, so that an upgrade tells at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

from infra.clickhouse.server import ENGINE_VERSION
from sinks.connection import Connection

ROOT = Path(__file__).parents[3]


def test_the_version_is_pinned_exactly_and_is_the_one_the_server_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"chdb-core=={ENGINE_VERSION}" in project["dependencies"]


def test_it_is_the_clickhouse_that_the_version_says(database: Connection) -> None:
    year, month = ENGINE_VERSION.split(".")[:2]
    assert database.value("SELECT version()").startswith(f"{year}.{month}.")


def test_limits_of_the_configuration_are_in_force(database: Connection) -> None:
    rows = database.execute(
        "SELECT name, value FROM system.server_settings WHERE name IN "
        "('max_server_memory_usage', 'mark_cache_size', 'uncompressed_cache_size')"
    )
    settings = {name: int(value) for name, value in rows}
    assert settings["max_server_memory_usage"] == 560 << 20
    assert settings["mark_cache_size"] == 24 << 20
    assert settings["uncompressed_cache_size"] == 0
    rows = database.execute(
        "SELECT name, value FROM system.merge_tree_settings "
        "WHERE name = 'min_columns_to_activate_adaptive_write_buffer'"
    )
    assert rows == [("min_columns_to_activate_adaptive_write_buffer", "1")]


def test_the_query_cache_tag_carries_a_text_that_sql_can_read(database: Connection) -> None:
    settings = {"query_cache_tag": "as_of=3:17"}
    assert database.value("SELECT getSetting('query_cache_tag')", settings=settings) == "as_of=3:17"
    assert database.value("SELECT getSetting('query_cache_tag')") == ""


def test_a_seal_copies_nothing_and_part_log_shows_it(database: Connection) -> None:
    for name in ("a", "b"):
        database.execute(
            f"CREATE TABLE {name} (n UInt64, s String) ENGINE = MergeTree "
            "ORDER BY n PARTITION BY intDiv(n, 1000000)"
        )
    database.execute("INSERT INTO a SELECT number, randomString(64) FROM numbers(200000)")
    database.execute("ALTER TABLE b REPLACE PARTITION 0 FROM a")
    sizes = {"a file of its own": 0, "the other's file": 0}
    for (part,) in database.execute(
        "SELECT path FROM system.parts WHERE active AND table = 'b' "
        "AND database = currentDatabase()"
    ):
        for found in (file.stat() for file in Path(part).iterdir()):
            sizes["the other's file" if found.st_nlink > 1 else "a file of its own"] += (
                found.st_size
            )
    assert sizes["the other's file"] > 10_000_000
    assert sizes["a file of its own"] < 100_000
    database.execute("SYSTEM FLUSH LOGS part_log")
    logged = database.execute(
        "SELECT event_type, rows FROM system.part_log WHERE table = 'b' "
        "AND database = currentDatabase()"
    )
    assert logged == [("NewPart", 200_000)]
