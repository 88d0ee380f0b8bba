"""What a view costs over a bare table, and what a seal copies.

The claims: at 50 million logs a scan through the view takes at most 1.15 times the bare table's,
the constant part is at most 25 ms, and a seal of a clean partition writes next to nothing. Rows
are made by ClickHouse itself: sealed partitions, and one open partition with orphans, a zombie's
rows and one load a block near the head. The bare table holds the visible rows in the very same
parts (hard links) but for the open partition's, which is a copy of them; every answer must be the
same from both. ``--millions N`` makes fewer. Takes some 0.15 GB of disk a million in the temporary
directory (``TMPDIR``), and gives it back.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
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
CLAIM_MILLIONS = 50
DISK_BYTES_A_MILLION = 250_000_000
"""What must be free for each million logs: the rows, and a merge of one partition beside them."""
QUERIES = {
    "constant": "SELECT count() FROM {} WHERE block_number > 1000000000",
    "by_address": "SELECT count(), sum(length(data)) FROM {} WHERE address = addr('{address}')",
    "scan_light": "SELECT sum(log_index) FROM {}",
    "scan_top_addresses": "SELECT address, count() n FROM {} GROUP BY address "
    "ORDER BY n, address LIMIT 9",
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
    """Seal all partitions but the last, publish, and put what is visible into `bare`."""
    connection.execute("CREATE TABLE local.bare AS local.logs_sealed")
    # The parts that a merge replaced would stay for eight minutes: twice the disk.
    for table in ("logs_open", "bare"):
        connection.execute(f"ALTER TABLE local.{table} MODIFY SETTING old_parts_lifetime = 1")
    written_bytes, started = 0, time.monotonic()
    for partition in range(partitions - 1):
        written_bytes += _seal(connection, partition)
        seconds = time.monotonic() - started
        left = seconds / (partition + 1) * (partitions - 1 - partition)
        say(f"{partition + 1} of {partitions} million logs, {left:.0f} s to go")
    _fill_open(connection, partitions - 1)
    sealed_bytes = connection.value(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'local' "
        "AND table = 'logs_sealed'"
    )
    return {
        "sealed_bytes": sealed_bytes,
        "written_by_seals_bytes": written_bytes,
        "fill_seconds": round(time.monotonic() - started, 1),
    }


def _seal(connection: Connection, partition: int) -> int:
    """Fill and seal a partition, and link it into `bare`; the bytes that the seal wrote."""
    first = partition * PARTITION_BLOCKS
    insert(connection, first, first + PARTITION_BLOCKS, partition + 1)
    # Merged to one part now, so that no merge writes while the seal is measured.
    connection.execute(f"OPTIMIZE TABLE local.logs_open PARTITION {partition} FINAL")
    before = _bytes_written(connection)
    connection.execute(
        f"ALTER TABLE local.logs_sealed REPLACE PARTITION {partition} FROM local.logs_open"
    )
    written_bytes = _bytes_written(connection) - before
    connection.execute(f"ALTER TABLE local.bare ATTACH PARTITION {partition} FROM local.logs_open")
    connection.execute(f"ALTER TABLE local.logs_open DROP PARTITION {partition}")
    return written_bytes


def _fill_open(connection: Connection, partition: int) -> None:
    """The open partition with orphans and a zombie's rows; the canon; a copy of what is visible."""
    start = partition * PARTITION_BLOCKS
    cuts = [*range(start, start + PARTITION_BLOCKS - 100, 100)]
    cuts += range(start + PARTITION_BLOCKS - 100, start + PARTITION_BLOCKS)
    loads = []
    for position, first in enumerate(cuts[:-1]):
        insert(connection, first, cuts[position + 1], 1_000 + position)
        loads.append(1_000 + position)
        if position % 10 == 0:
            insert(connection, first, cuts[position + 1], 1_000_000 + position)
    columns = (
        *("generation", "seq", "at", "floor", "head", "head_hash"),
        *("sealed", "loads", "straddling"),
    )
    sealed = list(range(partition))
    connection.insert_rows(
        "local.canon",
        columns,
        [
            (1, seq, datetime.now(UTC), 0, cuts[-1] - 1, bytes(32), sealed, loads, False)
            for seq in range(1, CANON_ROWS + 1)
        ],
    )
    connection.execute(
        f"INSERT INTO local.bare SELECT *, 0 FROM local.logs WHERE block_number >= {start}"
    )
    for table in ("bare", "logs_open"):
        connection.execute(f"OPTIMIZE TABLE local.{table} PARTITION {partition} FINAL")


def compare(connection: Connection, pid: int) -> dict[str, dict[str, float]]:
    """Median wall and mean CPU milliseconds of each query on the bare table and on the view."""
    address = connection.value("SELECT hex0x(any(address)) FROM local.logs_open")
    figures: dict[str, dict[str, float]] = {}
    for name, template in QUERIES.items():
        wall: dict[str, list[float]] = {"local.bare": [], "local.logs": []}
        cpu = dict.fromkeys(wall, 0.0)
        for _ in range(ROUNDS):
            answers = []
            for table, times in wall.items():
                sql = template.format(table, address=address)
                spent, started = cpu_seconds_of(pid), time.perf_counter()
                answers.append(connection.execute(sql))
                times.append((time.perf_counter() - started) * 1e3)
                cpu[table] += (cpu_seconds_of(pid) - spent) * 1e3 / ROUNDS
            if answers[0] != answers[1]:
                raise SystemExit(f"{name}: the view answers otherwise than the bare table")
        bare, view = (sorted(times)[ROUNDS // 2] for times in wall.values())
        figures[name] = {
            "bare_ms": round(bare, 1),
            "view_ms": round(view, 1),
            "ratio": round(view / bare, 3),
            "bare_cpu_ms": round(cpu["local.bare"], 1),
            "view_cpu_ms": round(cpu["local.logs"], 1),
        }
        say(f"{name}: {bare:.1f} ms bare, {view:.1f} ms by the view")
    return figures


def _bytes_written(connection: Connection) -> int:
    found = connection.execute(
        "SELECT value FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteBytes'"
    )
    return int(found[0][0])


def say(text: str) -> None:
    """How far it is, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def run(millions: int) -> dict[str, Any]:
    """Fill, compare, and judge."""
    facts = load_chains()["local"].resized(100, PARTITION_BLOCKS)
    with tempfile.TemporaryDirectory(prefix="headrace-views-") as folder:
        free, needed = shutil.disk_usage(folder).free, millions * DISK_BYTES_A_MILLION
        if free < needed:
            raise SystemExit(f"{folder} has {free:,} bytes free, {needed:,} are needed")
        with (
            EmbeddedServer(Path(folder) / "data") as server,
            Connection(server.endpoint()) as connection,
        ):
            prepare_database(connection, "local", CORE_TABLES, facts, 1337)
            seals = fill(connection, millions)
            visible = connection.value("SELECT count() FROM local.logs")
            queries = compare(connection, server.pid)
    constant = queries["constant"]["view_ms"] - queries["constant"]["bare_ms"]
    held = (
        millions >= CLAIM_MILLIONS
        and constant <= 25
        and all(queries[name]["ratio"] <= 1.15 for name in SCANS)
        and seals["written_by_seals_bytes"] <= seals["sealed_bytes"] / 1000
    )
    figures = {"logs": visible, **seals, "queries": queries, "constant_ms": round(constant, 1)}
    return {**figures, "claim_held": held}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=CLAIM_MILLIONS, help="logs, in millions")
    arguments = parser.parse_args()
    # Gigabytes are given back by whatever ends this but kill -9.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    record("views", run(arguments.millions))


if __name__ == "__main__":
    main()
