"""A data directory in, a ClickHouse server that serves it out: the running one, or our own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from infra.clickhouse.config import ServerLimits
from infra.clickhouse.datadir import STAMP, is_locked, read_stamp
from infra.clickhouse.server import EmbeddedServer, RunningServer, find_running
from infra.clickhouse_http import HttpAddress
from schemas.errors_embedded import DataDirectoryInUse
from schemas.errors_settings import DataMissing

STARTING_SECONDS_MAX = 15.0
"""How long a server that another process is just starting or stopping is waited for."""
QUERY_SECONDS_MAX = 60.0
"""How long a run waits for a query that owns the directory."""
BRIEF = "brief"
"""In the directory's run/: process id of a query that owns it."""

T = TypeVar("T")


def chain_of(data_dir: Path) -> str:
    """The chain that a data directory holds.

    Raises
    ------
    DataMissing
    """
    if not (data_dir / STAMP).exists():
        exists = data_dir.is_dir() and any(data_dir.iterdir())
        reason = f"It has no {STAMP}" if exists else "There is no such directory, or it is empty"
        raise DataMissing(path=str(data_dir), reason=reason)
    chain = read_stamp(data_dir).get("chain")
    if not isinstance(chain, str):
        raise DataMissing(path=str(data_dir), reason="No run has stored anything in it yet")
    return chain


@contextlib.contextmanager
def attached(
    data_dir: Path, limits: ServerLimits | None = None
) -> Iterator[RunningServer | EmbeddedServer]:
    """The server of a data directory: found running, or started for as long as it is used.

    Raises
    ------
    DataMissing
        And whatever `EmbeddedServer.start` raises.
    """
    chain_of(data_dir)
    until = time.monotonic() + STARTING_SECONDS_MAX
    running = find_running(data_dir)
    while running is None and is_locked(data_dir) and time.monotonic() < until:
        time.sleep(0.1)
        running = find_running(data_dir)
    if running is not None:
        yield running
        return
    brief = data_dir / "run" / BRIEF
    try:
        with EmbeddedServer(data_dir, limits=limits, supervise=False) as server:
            brief.write_text(f"{os.getpid()}\n")
            yield server
    finally:
        # After the server has stopped: until then the directory is owned, and owned briefly.
        if owned_briefly(data_dir, os.getpid()):
            brief.unlink(missing_ok=True)


def owned_briefly(data_dir: Path, pid: object) -> bool:
    """Whether process `pid` owns the directory only for as long as its query takes."""
    try:
        return (data_dir / "run" / BRIEF).read_text().strip() == str(pid)
    except OSError:
        return False


def patient_start(data_dir: Path, start: Callable[[], T]) -> T:
    """Call `start`, again and again while a mere query owns the directory.

    Without this, a `headrace sql` in another terminal could keep `headrace run` from starting.

    Raises
    ------
    DataDirectoryInUse
        If another run owns it, or a query takes too long. And whatever `start` raises.
    """
    until = time.monotonic() + QUERY_SECONDS_MAX
    while True:
        try:
            return start()
        except DataDirectoryInUse as error:
            if time.monotonic() > until or _is_run(data_dir, error.data["pid"]):
                raise
            time.sleep(0.2)


def _is_run(data_dir: Path, pid: object) -> bool:
    """Whether the owner is up and is no query; one that starts or stops may be either."""
    for _ in range(2):
        running = find_running(data_dir)
        if running is None or str(running.owner_pid) != str(pid) or owned_briefly(data_dir, pid):
            return False
        # A query's server is up a moment before its marker stands.
        time.sleep(0.3)
    return True


def http_address(
    server: RunningServer | EmbeddedServer, database: str, user: str = "analyst"
) -> HttpAddress:
    """Where a server's HTTP interface is, and as whom to use it."""
    endpoint = server.endpoint(user)
    return HttpAddress(
        f"http://{server.host}:{server.http_port}/", user, endpoint.password, database
    )
