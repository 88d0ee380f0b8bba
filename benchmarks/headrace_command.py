"""Arguments of `headrace` in, what the command used out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.measure import Usage, measure

HEADRACE = (sys.executable, "-m", "infra.cli")


@cache
def headrace_env() -> dict[str, str]:
    """The environment of a command whose modules are compiled already.

    A user's second command finds compiled modules beside the sources; here they are kept apart,
    so that neither a first run nor an environment without them counts compilation as indexing.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "headrace-benchmark-bytecode")
    loading = [sys.executable, "-c", "import infra.cli, infra.commands.demo, infra.pipeline"]
    subprocess.run(loading, env=env, check=True)
    return env


def measure_headrace(words: Sequence[str]) -> Usage:
    """Run ``headrace`` with these words and account for it and its ClickHouse.

    Raises
    ------
    SystemExit
        If it fails: then there is nothing to report.
    """
    usage = measure([*HEADRACE, *words], headrace_env())
    if usage.exit_code:
        raise SystemExit(f"headrace {words[0]} ended with exit code {usage.exit_code}")
    return usage
