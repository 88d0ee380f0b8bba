"""What a start costs before any block is indexed: CPU seconds of commands with nothing to do.

No claim of its own: `headrace run` pays its start once, and so does each process of a cluster. It
is the least of `ROUNDS`, because whatever else a machine does can only add.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.headrace_command import HEADRACE, headrace_env, measure_headrace
from benchmarks.measure import record
from benchmarks.served import serve_devchain

ROUNDS = 5
IMPORTS = {
    "python": "",
    "run": "import infra.cli, infra.commands.run, infra.pipeline",
    "ingest": "import infra.cli, infra.commands.ingest, infra.roles.ingest",
    "process": "import infra.cli, infra.commands.process, infra.roles.process",
    "sink": "import infra.cli, infra.commands.sink, infra.roles.sink",
    "publish": "import infra.cli, infra.commands.publish, infra.roles.publish",
}
"""What each command loads before it does anything, after Python itself."""
HELP = {"headrace --help": ["--help"], "headrace run --help": ["run", "--help"]}


def children_cpu_seconds() -> float:
    """User and system seconds of every process that has been waited for, and of its own."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def least(work: Callable[[], object]) -> float:
    """CPU seconds of the processes that `work` waits for, the least of `ROUNDS`."""
    work()
    spent = []
    for _ in range(ROUNDS):
        before = children_cpu_seconds()
        work()
        spent.append(children_cpu_seconds() - before)
    return round(min(spent), 3)


def quietly(command: Sequence[str]) -> None:
    """Run a command to its end, its output dropped."""
    subprocess.run(command, env=headrace_env(), check=True, stdout=subprocess.DEVNULL)


def runs(url: str) -> dict[str, dict[str, float]]:
    """A run of the genesis block alone, into a fresh directory and once more into the same."""
    figures: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="headrace-start-up-") as scratch:
            asked = ["run", "--chain", "local", "--rpc", url, "--from", "0", "--to", "0"]
            asked += ["--data", str(Path(scratch) / "data")]
            for name in ("fresh directory", "same directory again"):
                before = children_cpu_seconds()
                usage = measure_headrace(asked)
                seconds = round(children_cpu_seconds() - before, 3)
                found = {"cpu_seconds": seconds, **usage.cpu_seconds_by_command}
                if name not in figures or seconds < figures[name]["cpu_seconds"]:
                    figures[name] = found
    return figures


def run() -> dict[str, Any]:
    """All figures."""
    with serve_devchain("--blocks", "1", "--interval", "0", "--finality-depth", "0") as served:
        indexing = runs(served.url)
    return {
        "rounds": ROUNDS,
        "imports_cpu_seconds": {
            name: least(lambda words=words: quietly([sys.executable, "-c", words]))  # type: ignore[misc]
            for name, words in IMPORTS.items()
        },
        "help_cpu_seconds": {
            name: least(lambda words=words: quietly([*HEADRACE, *words]))  # type: ignore[misc]
            for name, words in HELP.items()
        },
        "run_with_nothing_to_do": indexing,
    }


def main() -> None:
    """Measure and record."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    record("start_up", run())


if __name__ == "__main__":
    main()
