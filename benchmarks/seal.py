"""What sealing a clean partition writes, how long it takes.

The claim: nothing is copied. What ClickHouse writes is a metadata file a part, of some 30 bytes,
which holds nothing of the rows. A partition of a real run, whose rows all count, is sealed by the
sealer. Bytes written come from system.part_log of the seal; besides, every file of the sealed
parts is looked at: a file that shares its inode with the open table's is a hard link.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.headrace_command import measure_headrace
from benchmarks.measure import record
from benchmarks.served import archive_folder, serve_archive
from benchmarks.stored import every_table
from infra.attached import chain_of
from infra.clickhouse.server import EmbeddedServer
from schemas.chains import load_chains
from schemas.tables import CORE_STREAMS
from sinks.connection import Connection
from sinks.ddl import OPEN, SEALED
from sinks.publisher import Publisher
from sinks.sealer import Sealed, Sealer, SealerSettings

METADATA_FILES = frozenset({"invalidated_system_columns.txt", "metadata_version.txt"})
"""Files of a part that hold none of its rows: ClickHouse writes them anew for each part."""
METADATA_BYTES_MAX = 128
"""And no more of them than so many bytes a part."""


def fill(blocks: int, folder: Path, data: Path, config: Path) -> None:
    """Index blocks 0 to `blocks` - 1, which are one partition."""
    config.write_text(f"partition_blocks = {blocks}\n")
    with serve_archive(folder, blocks) as served:
        words = ["run", "--config", str(config), "--chain", "local", "--rpc", served.url]
        words += ["--from", "0", "--to", str(blocks - 1), "--data", str(data)]
        measure_headrace(words)


def seal(server: EmbeddedServer, database: str, blocks: int) -> tuple[list[Sealed], float]:
    """Seal what can be sealed; the seconds that it took."""
    facts = load_chains()[database]
    facts = facts.resized(facts.segment_blocks, blocks)
    endpoint = server.endpoint(database=database)
    with Connection(endpoint) as own, Connection(endpoint) as sealing:
        publisher = Publisher(own, database, facts, dict.fromkeys(CORE_STREAMS), 0)
        publisher.claim()
        settings = SealerSettings(settle_seconds=0.0)
        sealer = Sealer(sealing, database, every_table(), publisher, settings=settings)
        started = time.perf_counter()
        sealed = sealer.run_once()
        return sealed, time.perf_counter() - started


def files_of(connection: Connection, database: str, suffix: str) -> dict[int, tuple[str, int]]:
    """Every file of the active parts of the tables with that suffix: inode, name and bytes."""
    parts = connection.execute(
        "SELECT path FROM system.parts WHERE active AND database = %(database)s "
        "AND endsWith(table, %(suffix)s)",
        {"database": database, "suffix": suffix},
    )
    found = {}
    for (path,) in parts:
        for entry in os.scandir(path):
            stat = entry.stat()
            found[stat.st_ino] = (entry.name, stat.st_size)
    return found


def run(blocks: int, folder: Path) -> dict[str, Any]:
    """Seal a partition of `blocks` blocks; raises if a visible row changes."""
    with tempfile.TemporaryDirectory(prefix="headrace-seal-") as scratch:
        data = Path(scratch) / "data"
        fill(blocks, folder, data, Path(scratch) / "headrace.toml")
        database = chain_of(data)
        with (
            EmbeddedServer(data, supervise=False) as server,
            Connection(server.endpoint(database=database)) as connection,
        ):
            connection.execute("SYSTEM STOP MERGES")
            connection.execute("SYSTEM FLUSH LOGS")
            before = connection.execute("SELECT count(), sum(log_index) FROM logs")
            rows_logged = connection.value("SELECT count() FROM system.part_log")
            sealed, seconds = seal(server, database, blocks)
            connection.execute("SYSTEM FLUSH LOGS")
            events = connection.execute(
                "SELECT event_type, count(), sum(size_in_bytes), "
                "sum(ProfileEvents['WriteBufferFromFileDescriptorWriteBytes']) "
                "FROM (SELECT * FROM system.part_log ORDER BY event_time_microseconds "
                f"LIMIT {rows_logged}, 1000000) WHERE database = %(database)s "
                "AND endsWith(table, '_sealed') GROUP BY event_type",
                {"database": database},
            )
            linked = files_of(connection, database, OPEN)
            files = files_of(connection, database, SEALED)
            after = connection.execute("SELECT count(), sum(log_index) FROM logs")
        if len(sealed) != 1 or before != after:
            raise SystemExit(f"sealed {sealed}; the logs were {before} and are {after}")
    copied = [file for inode, file in files.items() if inode not in linked]
    written = sum(int(row[3]) for row in events)
    return {
        "blocks": blocks,
        "rows": sealed[0].rows,
        "tables_copied": list(sealed[0].copied),
        "seconds": round(seconds, 3),
        "part_log": {str(row[0]): {"parts": row[1], "size_bytes": row[2]} for row in events},
        "part_log_bytes_written": written,
        "files": len(files),
        "files_not_linked": len(copied),
        "bytes_not_linked": sum(size for _, size in copied),
        "names_not_linked": sorted({name for name, _ in copied}),
        "claim_held": not sealed[0].copied
        and written <= METADATA_BYTES_MAX * sum(row[1] for row in events)
        and METADATA_FILES.issuperset(name for name, _ in copied),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1_000)
    parser.add_argument("--archive", type=Path, help="folder of the chain, made where missing")
    given = parser.parse_args(words)
    record("seal", run(given.blocks, archive_folder(given.archive, given.blocks)))


if __name__ == "__main__":
    main()
