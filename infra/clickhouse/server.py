"""Run, supervise and find the ClickHouse server of a data directory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.clickhouse import child
from infra.clickhouse.config import ServerLimits, render_config, render_users
from infra.clickhouse.datadir import (
    DataDirectory,
    is_locked,
    own_data_directory,
    read_password,
    write_atomically,
)
from infra.ports import HOST, check_port
from schemas.errors_embedded import (
    DataDirectoryDamaged,
    EngineUnusable,
    PortTaken,
    ServerDidNotStart,
    ServerGone,
)
from sinks.connection import Endpoint

ENGINE_VERSION = "26.9.0"
"""The chdb-core whose private entry point the child uses; any other is refused."""
START_TIMEOUT_SECONDS = 300.0
"""A bound for a machine that does much else: a child that ends is not waited for."""
STOP_TIMEOUT_SECONDS = 30.0
RESTARTS_MAX = 5
RESTARTS_WINDOW_SECONDS = 300.0
STOP_FAILURES = (
    *(OSError, http.client.HTTPException),
    *(subprocess.TimeoutExpired, DataDirectoryDamaged),
)
"""After one of these a child that was asked to end is killed; nothing acknowledged is lost."""
ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "TMPDIR", "TZ")
"""What the server's process gets of our environment."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that some process runs on a data directory."""

    host: str
    """Loopback address."""
    tcp_port: int
    """Port of the native protocol."""
    http_port: int
    """Port of the HTTP interface."""
    pid: int
    """Process id of the server."""
    owner_pid: int
    """Process id of the process that owns the data directory."""
    data_dir: Path
    """The data directory."""

    def endpoint(self, user: str = "headrace", database: str = "") -> Endpoint:
        """Where and as whom to connect."""
        password = read_password(self.data_dir, user)
        return Endpoint(self.host, self.tcp_port, user, password, database, self.http_port)


class EmbeddedServer:
    """The ClickHouse server of one data directory, as a child process.

    Used as a context manager, or by `start` and `stop`. A child that dies is started again on
    the same ports, at most ``RESTARTS_MAX`` times in ``RESTARTS_WINDOW_SECONDS``.

    Parameters
    ----------
    data_dir
        The data directory; made where it is missing.
    tcp_port, http_port
        0 lets the system choose.
    chain, chain_id
        Checked against the directory's stamp; None accepts what it holds.
    supervise
        Whether to start a dead child again.
    on_event
        Called with ("restarted" | "gone", exit code) from the supervising thread.
    """

    def __init__(
        self,
        data_dir: Path | str,
        tcp_port: int = 0,
        http_port: int = 0,
        *,
        chain: str | None = None,
        chain_id: int | None = None,
        limits: ServerLimits | None = None,
        supervise: bool = True,
        on_event: Callable[[str, int], None] | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.host = HOST
        self.tcp_port = tcp_port
        self.http_port = http_port
        self._chain, self._chain_id = chain, chain_id
        self._limits = limits or ServerLimits()
        self._supervise = supervise
        self._on_event = on_event or (lambda _event, _code: None)
        self._directory: DataDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._failure: ServerGone | None = None

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def password(self) -> str:
        """The password of the user `headrace`."""
        return read_password(self.data_dir, "headrace")

    @property
    def native_url(self) -> str:
        """Native protocol, for showing; it holds no password."""
        return f"clickhouse://headrace@{self.host}:{self.tcp_port}"

    @property
    def http_url(self) -> str:
        """HTTP interface, for showing; it holds no password."""
        return f"http://{self.host}:{self.http_port}/"

    def endpoint(self, user: str = "headrace", database: str = "") -> Endpoint:
        """Where and as whom to connect."""
        password = read_password(self.data_dir, user)
        return Endpoint(self.host, self.tcp_port, user, password, database, self.http_port)

    def start(self) -> EmbeddedServer:
        """Own the directory, start the child and wait until it answers.

        Raises
        ------
        EngineUnusable, PortTaken, ServerDidNotStart
            And whatever `own_data_directory` raises.
        """
        check_engine()
        directory = own_data_directory(self.data_dir, self._chain, self._chain_id)
        self._directory = directory
        self._stopping.clear()
        self._failure = None
        try:
            self._launch(directory)
        except BaseException:
            self._end_child(graceful=False)
            self._release()
            raise
        if self._supervise:
            self._watcher = threading.Thread(
                target=self._watch, args=(directory,), name="clickhouse-watch", daemon=True
            )
            self._watcher.start()
        return self

    def stop(self) -> None:
        """Stop gracefully and give the directory up. Close connections first: it is quicker."""
        self._shut(graceful=True)

    def kill(self) -> None:
        """Stop at once, as kill -9 does; nothing acknowledged is lost."""
        self._shut(graceful=False)

    def check(self) -> None:
        """Raise if the server is gone for good.

        Raises
        ------
        ServerGone
        """
        if self._failure is not None:
            raise self._failure

    def _shut(self, graceful: bool) -> None:
        self._stopping.set()
        self._end_child(graceful)
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        self._end_child(graceful)
        if self._directory is not None:
            (self._directory.run / "server.json").unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._directory is not None:
            self._directory.release()
            self._directory = None

    def _launch(self, directory: DataDirectory) -> None:
        """Render the configuration, start the child, wait for its ports and its answer."""
        for port in (self.tcp_port, self.http_port):
            check_port(self.host, port)
        run = directory.run
        (run / "ports.tsv").unlink(missing_ok=True)
        # It names the process before: no file is better than a wrong one where this start fails.
        (run / "server.json").unlink(missing_ok=True)
        config = render_config(self.host, self.tcp_port, self.http_port, str(run), self._limits)
        users = render_users(
            directory.password("headrace"), directory.password("analyst"), self._limits
        )
        write_atomically(run / "config.xml", config)
        write_atomically(run / "users.xml", users)
        ours, theirs = socket.socketpair()
        with ours, theirs, (run / "child.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    # -P: our package's folder must not come before the standard library.
                    *(sys.executable, "-P", child.__file__, str(run), str(directory.clickhouse)),
                    str(os.getpid()),
                ],
                # The child leaves when this closes, so also when we are killed. PDEATHSIG would
                # not do: it follows the thread that started the child, not the process. No pipe:
                # a query could open that by /proc/self/fd, and wait in it.
                stdin=theirs.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=run,
                # Ours may hold keys of nodes, and a query can read the server's.
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                pass_fds=(directory.lock,),
                # SYSTEM SHUTDOWN signals the whole process group; Ctrl-C is ours to handle.
                start_new_session=True,
            )
            self._process.stdin = ours.makefile("wb")
        self.tcp_port, self.http_port = self._wait_until_up(run)
        server = {
            "host": self.host,
            "tcp_port": self.tcp_port,
            "http_port": self.http_port,
            "pid": self._process.pid,
            "owner_pid": os.getpid(),
        }
        write_atomically(run / "server.json", json.dumps(server) + "\n")

    def _wait_until_up(self, run: Path) -> tuple[int, int]:
        assert self._process is not None
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < until:
            if self._stopping.is_set() or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                text = (run / "ports.tsv").read_text()
                if text.endswith("\n"):
                    tcp_port, http_port = (int(port) for port in text.split())
                    if is_up(self.host, http_port):
                        return tcp_port, http_port
            time.sleep(0.02)
        log = (run / "child.log").read_text(errors="replace").strip()
        detail = log.splitlines()[-1][:500] if log else f"exit code {self._process.poll()}"
        raise ServerDidNotStart(
            detail=detail,
            timeout_seconds=START_TIMEOUT_SECONDS,
            log=str(run / "child.log"),
        )

    def _watch(self, directory: DataDirectory) -> None:
        """Start the child again whenever it dies, within bounds."""
        starts: list[float] = []
        while True:
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            now = time.monotonic()
            starts = [at for at in starts if now - at < RESTARTS_WINDOW_SECONDS]
            if len(starts) >= RESTARTS_MAX:
                log = str(directory.run / "clickhouse.log")
                self._failure = ServerGone(attempts=len(starts) + 1, exit_code=code, log=log)
                self._on_event("gone", code)
                return
            starts.append(now)
            self._end_child(graceful=False)
            try:
                self._launch(directory)
            except (PortTaken, ServerDidNotStart, OSError):
                self._end_child(graceful=False)
                # The next turn of the loop sees the dead child and tries again, or gives up.
                self._stopping.wait(0.5)
                continue
            self._on_event("restarted", code)

    def _end_child(self, graceful: bool) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            if graceful:
                with contextlib.suppress(*STOP_FAILURES):
                    self._ask_to_end()
                    process.wait(STOP_TIMEOUT_SECONDS)
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _ask_to_end(self) -> None:
        """Send the query that ends the engine cleanly; raises OSError if it was not taken."""
        head = {"X-ClickHouse-User": "headrace", "X-ClickHouse-Key": self.password}
        peer = http.client.HTTPConnection(self.host, self.http_port, STOP_TIMEOUT_SECONDS)
        with contextlib.closing(peer):
            peer.request("POST", "/", child.STOP_SQL.encode(), head)
            peer.getresponse().read()


def find_running(data_dir: Path | str) -> RunningServer | None:
    """The server that some process runs on the data directory, or None.

    Raises
    ------
    DataDirectoryDamaged
        If the running server's password cannot be read.
    """
    path = Path(data_dir).absolute()
    if not is_locked(path):
        return None
    try:
        fields: dict[str, Any] = json.loads((path / "run" / "server.json").read_text())
        running = RunningServer(**fields, data_dir=path)
    except (OSError, ValueError, TypeError):
        return None
    return running if is_up(running.host, running.http_port) else None


def is_up(host: str, http_port: int) -> bool:
    """Whether a ClickHouse server answers a ping on the HTTP port."""
    try:
        url = f"http://{host}:{http_port}/ping"
        with urllib.request.urlopen(url, timeout=5) as answer:
            pong: bytes = answer.read()
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return pong == b"Ok.\n"


def check_engine() -> None:
    """Refuse any engine but the pinned one: its entry point is private and may change.

    Raises
    ------
    EngineUnusable
    """
    try:
        found = metadata.version("chdb-core")
    except metadata.PackageNotFoundError:
        found = None
    if found != ENGINE_VERSION:
        detail = f"chdb-core {found} is installed" if found else "chdb-core is not installed"
        raise EngineUnusable(detail=detail, asked=_own_version(), pinned=ENGINE_VERSION)


def _own_version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("headrace")
    return "(not installed)"
