"""What a view costs over a bare table, and what a seal copies.

The claims: at 50 million logs a scan through the view takes at most 1.15 times the bare table's,
the constant part is at most 25 ms, and a seal of a clean partition writes next to nothing. Rows
are made by ClickHouse itself: sealed partitions, and one open partition with orphans, a zombie's
rows and one load a block near the head. ``--millions N`` makes fewer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds_of, record
from infra.clickhouse.server import EmbeddedServer
from schemas.chains import load_chains
from schemas.tables import CORE_TABLES
from sinks.connection import Connection
from sinks.migrate import prepare_database

PARTITION_BLOCKS, LOGS_A_BLOCK, ROUNDS = 10_000, 100, 9
CANON_ROWS = 2_000
QUERIES = {
    "constant": "SELECT count() FROM {} WHERE block_number > 1000000000",
    "by_address": "SELECT count(), sum(length(data)) FROM {} WHERE address = addr('{address}')",
    "scan_light": "SELECT sum(log_index) FROM {}",
    "scan_top_addresses": "SELECT address, count() n FROM {} GROUP BY address ORDER BY n LIMIT 9",
    "scan_data": "SELECT sum(cityHash64(data)) FROM {}",
}
SCANS = ("scan_light", "scan_top_addresses", "scan_data")


def insert(connection: Connection, from_block: int, to_block: int, load_id: int) -> None:
    """Rows of the blocks of a half-open range."""
    number = f"{from_block} + intDiv(number, {LOGS_A_BLOCK})"
    block_hash = f"unhex(hex(sipHash128({number})) || hex(sipHash128({number}, 1)))"
    owner = "toUInt64(pow(rand() / 4294967295., 3) * 5000)"
    connection.execute(
        "INSERT INTO local.logs_open (block_number, block_hash, block_time, transaction_hash, "
        "log_index, address, topic0, topic1, topic2, data, load_id) SELECT "
        f"{number}, {block_hash}, 1700000000 + {number}, {block_hash}, "
        f"number % {LOGS_A_BLOCK}, "
        f"substring(unhex(hex(sipHash128({owner})) || '00000000'), 1, 20), "
        "unhex(hex(sipHash128(rand(1) % 5)) || hex(sipHash128(7))), "
        "unhex(hex(sipHash128(rand(2) % 5000)) || hex(sipHash128(7))), NULL, "
        f"randomString(64), {load_id} FROM numbers({(to_block - from_block) * LOGS_A_BLOCK})"
    )


def fill(connection: Connection, partitions: int) -> dict[str, Any]:
    """Seal all partitions but the last, publish, copy what is visible into `bare`."""
    written_bytes = 0
    for partition in range(partitions - 1):
        first = partition * PARTITION_BLOCKS
        insert(connection, first, first + PARTITION_BLOCKS, partition + 1)
        before = _bytes_written(connection)
        connection.execute(
            f"ALTER TABLE local.logs_sealed REPLACE PARTITION {partition} FROM local.logs_open"
        )
        written_bytes += _bytes_written(connection) - before
        connection.execute(f"ALTER TABLE local.logs_open DROP PARTITION {partition}")
    start = (partitions - 1) * PARTITION_BLOCKS
    cuts = [*range(start, start + PARTITION_BLOCKS - 100, 100)]
    cuts += range(start + PARTITION_BLOCKS - 100, start + PARTITION_BLOCKS)
    loads = []
    for position, first in enumerate(cuts[:-1]):
        insert(connection, first, cuts[position + 1], 1_000 + position)
        loads.append(1_000 + position)
        if position % 10 == 0:
            insert(connection, first, cuts[position + 1], 1_000_000 + position)
    columns = (
        "generation",
        "seq",
        "at",
        "floor",
        "head",
        "head_hash",
        "sealed",
        "loads",
        "straddling",
    )
    sealed = list(range(partitions - 1))
    connection.insert_rows(
        "local.canon",
        columns,
        [
            (1, seq, datetime.now(UTC), 0, cuts[-1] - 1, bytes(32), sealed, loads, False)
            for seq in range(1, CANON_ROWS + 1)
        ],
    )
    connection.execute("CREATE TABLE local.bare AS local.logs_sealed")
    connection.execute("INSERT INTO local.bare SELECT *, 0 FROM local.logs")
    for table in ("bare", "logs_open", "logs_sealed"):
        connection.execute(f"OPTIMIZE TABLE local.{table} FINAL")
    sealed_bytes = connection.value(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'logs_sealed'"
    )
    return {"sealed_bytes": sealed_bytes, "written_by_seals_bytes": written_bytes}


def compare(connection: Connection, pid: int) -> dict[str, dict[str, float]]:
    """Median wall and mean CPU milliseconds of each query on the bare table and on the view."""
    address = connection.value("SELECT hex0x(any(address)) FROM local.logs_open")
    figures: dict[str, dict[str, float]] = {}
    for name, template in QUERIES.items():
        wall: dict[str, list[float]] = {"local.bare": [], "local.logs": []}
        cpu = dict.fromkeys(wall, 0.0)
        for _ in range(ROUNDS):
            for table, times in wall.items():
                sql = template.format(table, address=address)
                spent, started = cpu_seconds_of(pid), time.perf_counter()
                connection.execute(sql)
                times.append((time.perf_counter() - started) * 1e3)
                cpu[table] += (cpu_seconds_of(pid) - spent) * 1e3 / ROUNDS
        bare, view = (sorted(times)[ROUNDS // 2] for times in wall.values())
        figures[name] = {
            "bare_ms": round(bare, 1),
            "view_ms": round(view, 1),
            "ratio": round(view / bare, 3),
            "bare_cpu_ms": round(cpu["local.bare"], 1),
            "view_cpu_ms": round(cpu["local.logs"], 1),
        }
    return figures


def _bytes_written(connection: Connection) -> int:
    found = connection.execute(
        "SELECT value FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteBytes'"
    )
    return int(found[0][0])


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=50, help="logs, in millions")
    arguments = parser.parse_args()
    facts = load_chains()["local"].resized(100, PARTITION_BLOCKS)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Path(folder) / "data") as server,
        Connection(server.endpoint()) as connection,
    ):
        prepare_database(connection, "local", CORE_TABLES, facts, 1337)
        seals = fill(connection, arguments.millions)
        visible = connection.value("SELECT count() FROM local.logs")
        queries = compare(connection, server.pid)
    constant = queries["constant"]["view_ms"] - queries["constant"]["bare_ms"]
    held = (
        constant <= 25
        and all(queries[name]["ratio"] <= 1.15 for name in SCANS)
        and seals["written_by_seals_bytes"] <= seals["sealed_bytes"] / 1000
    )
    figures = {"logs": visible, **seals, "queries": queries, "constant_ms": round(constant, 1)}
    record("views", {**figures, "claim_held": held})


if __name__ == "__main__":
    main()
