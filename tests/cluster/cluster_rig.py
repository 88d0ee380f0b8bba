"""A broker, a ClickHouse and a node in; every role of a cluster as processes to be broken out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.clickhouse.server import EmbeddedServer
from infra.settings import Settings
from infra.settings_sources import load_settings
from schemas.errors import HeadraceError
from sinks.connection import Connection
from tests.e2e.running import (
    CHAIN,
    PARTITION_BLOCKS,
    PATIENCE_SECONDS,
    ROOT,
    SEGMENT_BLOCKS,
    until,
)

RESTART_SECONDS = 0.3
"""How long after its end a role is started again, as systemd or Kubernetes would."""
SAID_CHARACTERS = 2_500
"""How much of each log a failure shows."""


@dataclass
class Worker:
    """One process of a role."""

    name: str
    """Its stable name, also the name of its log."""
    words: tuple[str, ...]
    """Its command."""
    process: subprocess.Popen[bytes]
    """The process of now."""
    wanted: bool = True
    """Whether it is started again when it ends."""
    codes: list[int] = field(default_factory=list)
    """How its former processes ended."""


class Cluster:
    """Every role of one chain, supervised: what ends is started again.

    Parameters
    ----------
    folder
        For the settings file, the logs and ClickHouse.
    bootstrap
        The broker.
    prefix
        Of the topics and groups.
    urls
        The node's endpoints.
    settings
        More lines of the settings file, before its tables.
    partitions
        Of a topic of segments.
    session_seconds
        How long a silent worker keeps its partitions.
    """

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        prefix: str,
        urls: Sequence[str],
        *,
        settings: str = "",
        tables_of_settings: str = "",
        partitions: int = 4,
        session_seconds: int = 6,
    ) -> None:
        self.folder, self.prefix = folder, prefix
        self.config = folder / "headrace.toml"
        self.workers: dict[str, Worker] = {}
        self.server = EmbeddedServer(folder / "data", chain=CHAIN).start()
        endpoint = self.server.endpoint()
        quoted = ", ".join(f'"{url}"' for url in urls)
        self.config.write_text(
            f"chain = '{CHAIN}'\nrpc = [{quoted}]\nfrom = 0\n"
            f"segment_blocks = {SEGMENT_BLOCKS}\npartition_blocks = {PARTITION_BLOCKS}\n"
            f"{settings}\n"
            f"[kafka]\nbootstrap = ['{bootstrap}']\ntopic_prefix = '{prefix}'\n"
            f"partitions = {partitions}\nsession_timeout_seconds = {session_seconds}\n"
            f"poll_interval_seconds_max = 10\n"
            "[clickhouse]\n"
            f"url = 'clickhouse://{endpoint.user}:{endpoint.password}"
            f"@{endpoint.host}:{endpoint.port}'\n"
            # Whether a worker that was asked to end has drained is for the test to say.
            f"[roles]\ndrain_seconds_max = {PATIENCE_SECONDS}\n"
            f"{tables_of_settings}\n"
        )
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self.command("topics", "create")
        self.command("migrate")
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    @property
    def settings(self) -> Settings:
        """What the roles are told."""
        return load_settings(self.config, {}, {})

    def command(self, *words: str, code: int = 0) -> str:
        """Run one command to its end; what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *words, "--config", str(self.config)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{said}"
        return said

    def start(self, name: str, *words: str) -> Worker:
        """Start a worker under a stable name and keep it running."""
        worker = Worker(name, words, self._launch(name, words))
        with self._lock:
            self.workers[name] = worker
        return worker

    def start_all(self) -> None:
        """One of each role, and a worker of `process` per lane."""
        self.start("ingest", "ingest")
        self.start("process-history", "process", "--lanes", "history")
        self.start("process-head", "process", "--lanes", "head")
        self.start("sink", "sink")
        self.start("publish", "publish")

    def kill(self, name: str) -> None:
        """End a worker as a power cut would; it is started again."""
        with self._lock:
            self.workers[name].process.kill()

    def pause(self, name: str) -> None:
        """Stop a worker's clock."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            self.workers[name].process.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused worker go on."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            self.workers[name].process.send_signal(signal.SIGCONT)

    def remove(self, name: str) -> int:
        """Let a worker drain and end; its exit code."""
        with self._lock:
            worker = self.workers.pop(name)
            worker.wanted = False
        worker.process.terminate()
        try:
            code = worker.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            # Its threads' stacks go to its log.
            worker.process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            log = (self.folder / f"{name}.log").read_text()
            raise AssertionError(f"{name} does not end\n{log}\n{self.said()}") from error
        worker.codes.append(code)
        return code

    def await_started(self, name: str) -> None:
        """Wait until a worker has taken its signals: from then on SIGTERM drains it."""
        log = self.folder / f"{name}.log"
        until(lambda: '"role_started"' in log.read_text(), f"{name} does not start")

    def visible_head(self) -> int:
        """The highest visible block; -1 while nothing can be read."""
        try:
            with self.connect() as connection:
                sql = "SELECT if(count() = 0, -1, toInt64(max(block_number))) FROM blocks"
                return int(connection.value(sql))
        except HeadraceError:
            return -1

    def connect(self) -> Connection:
        """A connection to the chain's database."""
        return Connection(self.server.endpoint(database=CHAIN))

    def wait_for(self, number: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a block is visible."""
        end = time.monotonic() + seconds
        while self.visible_head() < number:
            if time.monotonic() > end:
                shown = self.visible_head()
                self._show_threads()
                raise AssertionError(f"block {number} is not visible, {shown} is\n{self.said()}")
            time.sleep(0.1)

    def _show_threads(self) -> None:
        """Let every worker write down where its threads are: one of them may stand still."""
        for worker in self.workers.values():
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)

    def said(self) -> str:
        """The end of every worker's log."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            ends = self.workers[path.stem].codes if path.stem in self.workers else []
            parts.append(f"--- {path.stem} (ended {ends})\n{path.read_text()[-SAID_CHARACTERS:]}")
        return "\n".join(parts)

    def close(self) -> None:
        """End everything at once."""
        self._stopping.set()
        self._supervisor.join()
        for worker in self.workers.values():
            worker.process.kill()
            worker.process.wait()
        self.server.stop()

    def _launch(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "infra.cli", *words, "--config", str(self.config)],
                cwd=ROOT,
                env={**os.environ, "HEADRACE_KAFKA__INSTANCE": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _supervise(self) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            with self._lock:
                for worker in self.workers.values():
                    code = worker.process.poll()
                    if code is not None and worker.wanted:
                        worker.codes.append(code)
                        worker.process = self._launch(worker.name, worker.words)


@contextlib.contextmanager
def cluster(
    folder: Path, bootstrap: str, prefix: str, urls: Sequence[str], **given: object
) -> Iterator[Cluster]:
    """A cluster whose processes end with the block."""
    running = Cluster(folder, bootstrap, prefix, urls, **given)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.close()
