"""What an insert costs ClickHouse, by its rows, with and without waiting for the disk.

No claim of its own, but what two decisions rest on (docs/decisions.md): a small insert costs
nearly as much as one of a thousand rows, so loads are batched; and every insert is fsynced, which
only small ones feel. CPU is that of the server's process, an insert, the least of `ROUNDS`; wall
time is the median. The two tables take turns. Merges are stopped, so that none is counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds_of, record
from infra.clickhouse.server import EmbeddedServer
from schemas.chains import load_chains
from schemas.tables import CORE_TABLES
from sinks.connection import Connection
from sinks.migrate import prepare_database

ROUNDS = 6
INSERTS = {1: 20, 1_000: 20, 100_000: 2}
"""Inserts of a round, by how many rows each has."""
TABLES = {"fsynced": 1, "not_fsynced": 0}
COLUMNS = (
    *("block_number", "block_hash", "block_time", "transaction_hash", "log_index"),
    *("address", "topic0", "data", "load_id"),
)


def rows_of(count: int) -> list[tuple[object, ...]]:
    """Logs of one block, with hashes that differ."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        (1, bytes(32), at, number.to_bytes(32), number, bytes(20), bytes(32), bytes(64), 1)
        for number in range(count)
    ]


def insert_all(connection: Connection, pid: int) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of an insert, by table and rows."""
    figures: dict[str, dict[str, dict[str, float]]] = {table: {} for table in TABLES}
    for count, inserts in INSERTS.items():
        rows = rows_of(count)
        cpu: dict[str, list[float]] = {table: [] for table in TABLES}
        wall: dict[str, list[float]] = {table: [] for table in TABLES}
        for _ in range(ROUNDS):
            for table in TABLES:
                spent = cpu_seconds_of(pid)
                for _ in range(inserts):
                    started = time.perf_counter()
                    connection.insert_rows(f"local.{table}", COLUMNS, rows)
                    wall[table].append((time.perf_counter() - started) * 1e3)
                cpu[table].append((cpu_seconds_of(pid) - spent) * 1e3 / inserts)
        for table in TABLES:
            figures[table][f"{count:,} rows"] = {
                "cpu_ms": round(min(cpu[table]), 1),
                "wall_ms": round(statistics.median(wall[table]), 1),
            }
    return figures


def run() -> dict[str, Any]:
    """Make the two tables and fill them."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-insert-") as folder,
        EmbeddedServer(Path(folder) / "data") as server,
        Connection(server.endpoint()) as connection,
    ):
        prepare_database(connection, "local", CORE_TABLES, load_chains()["local"], 1337)
        for table, value in TABLES.items():
            connection.execute(f"CREATE TABLE local.{table} AS local.logs_open")
            connection.execute(
                f"ALTER TABLE local.{table} MODIFY SETTING "
                f"fsync_after_insert = {value}, fsync_part_directory = {value}"
            )
            connection.execute(f"SYSTEM STOP MERGES local.{table}")
        return {"table": "logs_open", "of_an_insert": insert_all(connection, server.pid)}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    argparse.ArgumentParser(description=__doc__).parse_args(words)
    record("insert_cost", run())


if __name__ == "__main__":
    main()
