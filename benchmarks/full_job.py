"""What it costs to index a range whole: CPU of ours and of ClickHouse, memory, result checked.

The claim: blocks, transactions, receipts, logs and all decoded events, verified to `receipts`, for
at most 25 CPU seconds per million logs, ClickHouse's share included, in at most 1.5 GiB. The chain
is served from memory by another process, whose cost is reported apart.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.headrace_command import measure_headrace
from benchmarks.measure import Usage, record
from benchmarks.served import LOGS, TRANSACTIONS, archive_folder, read_truth, serve_archive
from benchmarks.stored import compare, every_table

CPU_SECONDS_MAX = 25.0
"""Claimed per million logs."""
PEAK_BYTES_MAX = 3 << 29
"""Claimed: 1.5 GiB."""


def figures_of(usage: Usage, logs: int, served_cpu_seconds: float) -> dict[str, Any]:
    """What a run used, per million logs."""
    per_million = 1e6 / logs
    return {
        "logs": logs,
        "wall_seconds": round(usage.wall_seconds, 1),
        "cpu_seconds": usage.cpu_seconds,
        "cpu_seconds_per_million_logs": round(usage.cpu_seconds * per_million, 2),
        "cpu_seconds_per_million_logs_by_process": {
            name: round(seconds * per_million, 2)
            for name, seconds in usage.cpu_seconds_by_command.items()
        },
        "clickhouse_cpu_seconds_by_thread": usage.cpu_seconds_by_thread,
        "peak_bytes": usage.peak_bytes,
        "server_of_the_chain_cpu_seconds": served_cpu_seconds,
    }


def run(blocks: int, folder: Path) -> dict[str, Any]:
    """Index `blocks` blocks above genesis into a fresh directory; raises if the result is wrong."""
    with tempfile.TemporaryDirectory(prefix="headrace-full-job-") as scratch:
        data = Path(scratch) / "data"
        with serve_archive(folder, blocks) as served:
            asked = ["run", "--chain", "local", "--rpc", served.url, "--from", "0"]
            asked += ["--to", str(blocks), "--verify", "receipts", "--data", str(data)]
            usage = measure_headrace(asked)
            cost = served.cpu_seconds()
        compared = compare(data, read_truth(folder), every_table())
    if compared.differences:
        raise SystemExit("the result is not the truth:\n" + "\n".join(compared.differences))
    figures = figures_of(usage, compared.rows["logs"], cost)
    figures["stored_bytes"] = compared.stored_bytes
    figures["rows"] = compared.rows
    figures["claim_held"] = (
        figures["cpu_seconds_per_million_logs"] <= CPU_SECONDS_MAX
        and usage.peak_bytes <= PEAK_BYTES_MAX
    )
    return {
        "blocks": blocks,
        "transactions_per_block": TRANSACTIONS,
        "logs_per_block": LOGS,
        **figures,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--archive", type=Path, help="folder of the chain, made where missing")
    given = parser.parse_args(words)
    record("full_job", run(given.blocks, archive_folder(given.archive, given.blocks)))


if __name__ == "__main__":
    main()
