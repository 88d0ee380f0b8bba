"""A command or figures in, a recorded result out: CPU seconds, peak memory, machine, commit."""

from __future__ import annotations

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
_PAGE = os.sysconf("SC_PAGE_SIZE")


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


def _tree(root: int) -> list[int]:
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


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(command: list[str], env: dict[str, str] | None = None) -> Usage:
    """Run `command` to its end and account for it and its descendants.

    CPU comes from the kernel's accounting of each process, sampled until its end every 100 ms
    (what a process burns in its last 100 ms is lost); memory is the tree's PSS, sampled too.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, env=env)
    cpu: dict[int, float] = {}
    names: dict[int, str] = {}
    peak = 0
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            total = 0
            for pid in _tree(process.pid):
                try:
                    cpu[pid] = _cpu(pid)
                    total += _memory(pid)
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    names[pid] = "clickhouse" if b"clickhouse" in line else "headrace"
                except OSError:
                    continue
            peak = max(peak, total)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    exit_code = process.wait()
    wall = time.perf_counter() - started
    ended.set()
    sampler.join()
    by_command: dict[str, float] = {}
    for pid, seconds in cpu.items():
        name = names.get(pid, "headrace")
        by_command[name] = round(by_command.get(name, 0.0) + seconds, 2)
    return Usage(wall, sum(cpu.values()), peak, exit_code, by_command)


def record(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and append them to ``results/<name>.jsonl`` with where they come from."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("numpy", "fastavro", "clickhouse-driver", "chdb-core", "msgspec", "aiohttp")
    result = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "os": platform.platform()},
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
