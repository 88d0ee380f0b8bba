"""The canon row that a query reads names rows that are there: snapshots are younger than it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from schemas.chains import load_chains
from schemas.tables import WITHDRAWALS
from sinks.connection import Connection, Endpoint
from sinks.ddl import LOAD_ID, OPEN, SEALED
from sinks.migrate import prepare_database

PARTITION_BLOCKS = 10
QUERIES = 12
# The server sleeps so long between taking a table's snapshot and going on.
SLEEP_MS = 60


def insert_blocks(connection: Connection, table: str, numbers: range, load_id: int) -> None:
    """A row a block of `withdrawals`."""
    columns = ["block_number", "block_hash", "position", LOAD_ID]
    rows = [(number, bytes(32), 0, load_id) for number in numbers]
    connection.insert_rows(table, columns, rows)


def write_canon(
    connection: Connection, database: str, seq: int, head: int, sealed: list[int], loads: list[int]
) -> None:
    names = [
        *("generation", "seq", "at", "floor", "head", "head_hash", "straddling"),
        *("sealed", "loads"),
    ]
    row = (1, seq, datetime.now(UTC), 0, head, bytes(32), False, sealed, loads)
    connection.insert_rows(f"{database}.canon", names, [row])


def test_loads_and_seals_that_appear_while_a_query_is_analysed(endpoint: Endpoint) -> None:
    """Rows, seal and canon row follow each other at once, while queries are being analysed."""
    database = endpoint.database
    chain = load_chains()["local"].resized(5, PARTITION_BLOCKS)
    problems: list[str] = []
    with Connection(endpoint) as writer, Connection(endpoint) as reader:
        prepare_database(writer, database, [WITHDRAWALS], chain, 1337)
        name = f"{database}.{WITHDRAWALS.name}"
        stop = threading.Event()

        def write() -> None:
            sealed: list[int] = []
            for seq, partition in enumerate(range(200)):
                if stop.is_set():
                    return
                first = partition * PARTITION_BLOCKS
                insert_blocks(writer, name + OPEN, range(first, first + 10), 1000 + seq)
                write_canon(writer, database, 2 * seq, first + 9, sealed, [1000 + seq])
                writer.execute(
                    f"ALTER TABLE {name}{SEALED} REPLACE PARTITION {partition} FROM {name}{OPEN}"
                )
                sealed = [*sealed, partition]
                write_canon(writer, database, 2 * seq + 1, first + 9, sealed, [])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(QUERIES):
                ((rows, top),) = reader.execute(
                    "SELECT count(), max(block_number) FROM withdrawals",
                    settings={"merge_tree_storage_snapshot_sleep_ms": SLEEP_MS},
                )
                if (rows and rows != top + 1) or rows % PARTITION_BLOCKS:
                    problems.append(f"{rows} rows up to block {top}")
        finally:
            stop.set()
            thread.join()
    assert not problems, problems
