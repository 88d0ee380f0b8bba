"""What it costs to index ERC-20 transfers alone from eth_getLogs, result checked.

The claim: ``--source logs`` with the one topic of Transfer costs at most 7 CPU seconds per million
logs fetched, ClickHouse's share included. ERC-721 transfers share that topic and come along.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.full_job import figures_of
from benchmarks.headrace_command import measure_headrace
from benchmarks.measure import record
from benchmarks.served import archive_folder, read_truth, serve_archive
from benchmarks.stored import compare, every_table
from infra.devchain.archive import Archive
from infra.devchain.logfilter import LogFilter
from infra.settings import LOGS_SEGMENT_BLOCKS
from schemas.events import builtin_events

CPU_SECONDS_MAX = 7.0
"""Claimed per million logs fetched."""
WHOLE_TABLES = ("erc20_transfers", "erc721_transfers", "nonstandard_transfers")
"""Tables whose every event has the topic."""


def transfer_topic() -> bytes:
    """The topic of Transfer(address,address,uint256)."""
    events = {event.table.name: event for event in builtin_events()}
    return events["erc20_transfers"].layouts[0].topic0


def run(blocks: int, folder: Path) -> dict[str, Any]:
    """Index the transfers of `blocks` blocks above genesis; raises if the result is wrong."""
    with tempfile.TemporaryDirectory(prefix="headrace-logs-only-") as scratch:
        data, config = Path(scratch) / "data", Path(scratch) / "headrace.toml"
        topics = f'[logs]\ntopic0 = ["0x{transfer_topic().hex()}"]\n'
        config.write_text(topics)
        with serve_archive(folder, blocks) as served:
            asked = ["run", "--config", str(config), "--chain", "local", "--rpc", served.url]
            asked += ["--source", "logs", "--from", "0", "--to", str(blocks), "--data", str(data)]
            usage = measure_headrace(asked)
            cost = served.cpu_seconds()
        archive = Archive(folder)
        wanted = LogFilter(None, (frozenset({transfer_topic()}),))
        logs = sum(1 for _ in archive.logs(0, blocks, wanted))
        truth = {name: sums for name, sums in read_truth(folder).items() if name in WHOLE_TABLES}
        truth["logs"] = {"rows": logs}
        tables = [table for table in every_table() if table.name in (*WHOLE_TABLES, "logs")]
        compared = compare(data, truth, tables)
    if compared.differences:
        raise SystemExit("the result is not the truth:\n" + "\n".join(compared.differences))
    figures = figures_of(usage, logs, cost)
    figures["logs_in_the_range"] = read_truth(folder)["logs"]["rows"]
    figures["stored_bytes"] = compared.stored_bytes
    figures["rows"] = compared.rows
    figures["claim_held"] = figures["cpu_seconds_per_million_logs"] <= CPU_SECONDS_MAX
    return {"blocks": blocks, "segment_blocks": LOGS_SEGMENT_BLOCKS, **figures}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--archive", type=Path, help="folder of the chain, made where missing")
    given = parser.parse_args(words)
    record("logs_only", run(given.blocks, archive_folder(given.archive, given.blocks)))


if __name__ == "__main__":
    main()
