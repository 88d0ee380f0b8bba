"""A command or figures in, a recorded result out: CPU seconds, peak memory, machine, commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.2
THREADS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and all its descendants used."""

    wall_seconds: float
    """From start to exit."""
    cpu_seconds: float
    """User and system time of the whole tree."""
    peak_bytes: int
    """Largest sum of the tree's proportional set sizes, sampled."""
    exit_code: int
    """Of the command."""
    cpu_seconds_by_command: dict[str, float]
    """CPU seconds by what the process is: ``headrace`` or ``clickhouse``."""
    cpu_seconds_by_thread: dict[str, float]
    """ClickHouse's CPU seconds by the names that its threads have, largest first; threads that
    lived less than a sample's interval are missing."""


def process_tree(root: int) -> list[int]:
    """A process and its living descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rsplit(")", 1)[1].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(parents.get(pid, []))
    return found


def cpu_seconds_of(pid: int) -> float:
    """User and system seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree_cpu_seconds(root: int) -> float:
    """What a process and its living descendants have used, user and system seconds."""
    total = 0.0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            total += cpu_seconds_of(pid)
    return total


def _thread_cpu(pid: int) -> dict[tuple[int, str], float]:
    """CPU seconds of a process's threads, by id and name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            stat = (task / "stat").read_text()
        except OSError:
            continue
        name, rest = stat.split("(", 1)[1].rsplit(")", 1)
        fields = rest.split()
        found[int(task.name), name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class Sampler:
    """Follows a process and its descendants until they end.

    CPU comes from the kernel's accounting of each process, sampled every `SAMPLE_SECONDS` (what a
    process burns after its last sample is lost, but for the root, whose end is waited for);
    memory is the tree's proportional set size, sampled too.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._threads: dict[tuple[int, str], float] = {}
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()

    def sample(self) -> None:
        """Look at every process of the tree once."""
        total = 0
        for pid in process_tree(self._pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if line:  # not that of a process that has ended
                    self._names[pid] = "clickhouse" if b"clickhouse" in line else "headrace"
                self._cpu[pid] = cpu_seconds_of(pid)
                total += _memory(pid)
                if self._names.get(pid) == "clickhouse":
                    self._threads |= _thread_cpu(pid)
            except OSError:
                continue
        self._peak = max(self._peak, total)

    def end(self, wall_seconds: float, exit_code: int) -> Usage:
        """Stop sampling and add up."""
        self._ended.set()
        self._thread.join()
        self.sample()
        by_command: dict[str, float] = {}
        for pid, seconds in self._cpu.items():
            name = self._names.get(pid, "headrace")
            by_command[name] = round(by_command.get(name, 0.0) + seconds, 2)
        by_thread: dict[str, float] = {}
        for (_, name), seconds in self._threads.items():
            by_thread[name] = round(by_thread.get(name, 0.0) + seconds, 2)
        threads = sorted(by_thread.items(), key=lambda pair: -pair[1])[:THREADS_SHOWN]
        total = round(sum(self._cpu.values()), 2)
        return Usage(wall_seconds, total, self._peak, exit_code, by_command, dict(threads))


def measure(command: list[str], env: dict[str, str] | None = None) -> Usage:
    """Run `command` to its end and account for it and its descendants."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=env)
    sampler = Sampler(process.pid)
    # Waits for the end without reaping, so that its last figures can still be read.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall = time.perf_counter() - started
    return sampler.end(wall, process.wait())


def commit() -> str:
    """What the working tree is of; ``-dirty`` where it differs from that."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()


def record(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and append them to ``results/<name>.jsonl`` with where they come from."""
    packages = ("numpy", "fastavro", "clickhouse-driver", "chdb-core", "msgspec", "aiohttp")
    result = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "os": platform.platform(),
            "load_average_at_end": [round(load, 1) for load in os.getloadavg()],
        },
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in packages},
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(figures, indent=2))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
