"""A data directory and endpoints in, `headrace run` as a process of its own out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.clickhouse.server import EmbeddedServer, find_running
from infra.devchain import Budget, Chain, Spec
from processors.abi import build_layouts
from schemas.errors import HeadraceError
from schemas.tables import CORE_TABLES, Table
from sinks.connection import Connection
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
SEGMENT_BLOCKS, PARTITION_BLOCKS = 5, 20
FINALITY_DEPTH = 12
CHAIN = "local"
UNHURRIED = {"HEADRACE_LIMITS__DRAIN_SECONDS_MAX": "3600"}
"""For a run that is told to end: it is waited for, however long what is under way takes."""


def small_chain(seed: int) -> Chain:
    """A chain of small blocks whose finality is near, so that it is sealed while it grows."""
    return Chain(Spec(seed=seed, budget=Budget(8, 20), finality_depth=FINALITY_DEPTH, safe_depth=6))


def tables() -> tuple[Table, ...]:
    """Every table that a run without contracts of its own fills."""
    return (*CORE_TABLES, *build_layouts().tables)


class Headrace:
    """`headrace run` on one data directory, as often as wanted.

    Parameters
    ----------
    folder
        Holds the settings file, the logs and the data directory.
    urls
        The endpoints.
    settings
        More lines of the settings file.
    grid
        Blocks of a segment and of a partition.
    """

    def __init__(
        self,
        folder: Path,
        urls: Sequence[str],
        settings: str = "",
        grid: tuple[int, int] = (SEGMENT_BLOCKS, PARTITION_BLOCKS),
    ) -> None:
        self.data = folder / "data"
        self.config = folder / "headrace.toml"
        self.log = folder / "run.log"
        self.urls = list(urls)
        self.config.write_text(
            f"segment_blocks = {grid[0]}\npartition_blocks = {grid[1]}\n{settings}"
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own; its output goes to `log`."""
        rpc = [word for url in self.urls for word in ("--rpc", url)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "infra.cli", "run", "--config", str(self.config)),
                    *("--data", str(self.data), *rpc, *words),
                ],
                cwd=ROOT,
                env={**os.environ, **UNHURRIED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *words: str) -> str:
        """Run to the end, which must be a good one; what it said."""
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self.start(*words)
        try:
            code = process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.end(process)
            raise AssertionError(f"no end within {PATIENCE_SECONDS} s:\n{self.said()}") from None
        said = self.log.read_bytes()[before:].decode()
        assert code == 0, said[-4000:]
        return said

    def audit(self) -> None:
        """Every invariant holds on what is stored."""
        words = [sys.executable, "-m", "infra.cli", "audit", "--config", str(self.config)]
        done = subprocess.run(
            [*words, "--data", str(self.data)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def said(self) -> str:
        """The last lines of all runs' output."""
        return self.log.read_text()[-4000:]

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a run and its ClickHouse at once, as a power cut would."""
        servers = list(self.clickhouse_pids())
        process.kill()
        for pid in servers:
            with _gone_is_fine():
                os.kill(pid, signal.SIGKILL)
        process.wait()
        until(lambda: not list(self.clickhouse_pids()), "ClickHouse did not die")

    def clickhouse_pids(self) -> Iterator[int]:
        """The ClickHouse processes on the data directory."""
        wanted = str(self.data).encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with _gone_is_fine():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(b"clickhouse/child.py" in word for word in words[:4]) and any(
                    word.startswith(wanted) for word in words
                ):
                    yield int(entry.name)

    @contextmanager
    def stored(self, chain: str = CHAIN) -> Iterator[Connection]:
        """What the runs stored, read by a server of its own."""
        with (
            EmbeddedServer(self.data, chain=chain) as server,
            Connection(server.endpoint(database=chain)) as connection,
        ):
            yield connection


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        return


def until(ask: object, otherwise: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until `ask()` is true, asking ever more seldom: a question may cost a connection."""
    assert callable(ask)
    end, pause = time.monotonic() + seconds, 0.02
    while not ask():
        assert time.monotonic() < end, otherwise
        time.sleep(pause)
        pause = min(1.3 * pause, 0.3)


def numbers(connection: Connection, sql: str) -> list[int]:
    """The first column of a query's result."""
    return [row[0] for row in connection.execute(sql)]


def shown(headrace: Headrace) -> int:
    """The highest visible block of a run that is going on; -1 while nothing can be read."""
    running = find_running(headrace.data)
    if running is None:
        return -1
    try:
        with Connection(running.endpoint(database=CHAIN)) as connection:
            sql = "SELECT if(count() = 0, -1, toInt64(max(block_number))) FROM blocks"
            return numbers(connection, sql)[0]
    except HeadraceError:
        return -1
