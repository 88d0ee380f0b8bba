"""A number of blocks in, a devchain's archive served by a process of its own out."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import cpu_seconds_of
from infra.devchain.archive import TRUTH

TRANSACTIONS, LOGS = 30, 100
"""Of each block."""

Truth = dict[str, dict[str, int]]
"""Rows, and sums of number columns modulo 2^256, by table."""


@dataclass(slots=True)
class Served:
    """A chain that a process serves."""

    url: str
    """Its JSON-RPC."""
    pid: int
    """The process."""
    cpu_seconds_before: float
    """What it had used before it served: to make or to load the chain."""

    def cpu_seconds(self) -> float:
        """What serving has cost so far."""
        return round(cpu_seconds_of(self.pid) - self.cpu_seconds_before, 2)


@contextlib.contextmanager
def serve_devchain(*options: str) -> Iterator[Served]:
    """Serve a devchain made by the options of ``python -m infra.devchain``."""
    command = [sys.executable, "-m", "infra.devchain", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the devchain did not start: {' '.join(command)}")
        yield Served(url, process.pid, cpu_seconds_of(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def archive_folder(given: Path | None, blocks: int) -> Path:
    """Where the archive of so many blocks is kept between runs of the benchmarks."""
    return given or Path(tempfile.gettempdir()) / f"headrace-benchmark-archive-{blocks}"


@contextlib.contextmanager
def serve_archive(folder: Path, blocks: int) -> Iterator[Served]:
    """Serve `blocks` blocks above genesis from memory, all final; made first where missing."""
    options = {
        "--archive": str(folder),
        "--blocks": str(blocks),
        "--transactions": str(TRANSACTIONS),
        "--logs": str(LOGS),
        "--finality-depth": "0",
        "--interval": "0",
    }
    flat = [word for pair in options.items() for word in pair]
    with serve_devchain("--exact", *flat) as served:
        yield served


def read_truth(folder: Path) -> Truth:
    """What every table must hold when the whole archive is indexed."""
    told = json.loads((folder / TRUTH).read_text("utf-8"))
    return {
        table: {name: int(total) for name, total in sums.items()} for table, sums in told.items()
    }
