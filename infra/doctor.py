"""Settings in, checks of machine, endpoints and data directory out, each with its fix."""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.clickhouse.confinement import open_holes
from infra.clickhouse.datadir import STAMP, is_locked, read_stamp
from infra.clickhouse.server import EmbeddedServer, check_engine, find_running
from infra.ports import HOST, check_port
from infra.settings import Settings
from infra.terminal import sized
from schemas.errors import HeadraceError

GIB = 1 << 30
PYTHON_MIN = (3, 11)
DISK_BYTES_MIN = 10 * GIB
DISK_BYTES_FATAL = GIB
MEMORY_BYTES_MIN = 2 * GIB
OPEN_FILES_MIN = 4096
WHEELS = (
    *("aiohttp", "avro", "clickhouse_driver", "fastavro", "lz4", "msgspec", "numpy", "pydantic"),
    *("prometheus_client", "rich", "sha3", "stamina", "structlog", "uvloop", "web3", "zstd"),
)

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What was looked at."""
    state: State
    """`ok`, `warn` (it works, but) or `fail`."""
    found: str
    """What was found."""
    fix: str = ""
    """What to do about it; empty for `ok`."""


def run_checks(settings: Settings) -> Iterator[Check]:
    """Every check in turn; a check that fails does not keep the others from running."""
    local: tuple[Callable[[Settings], Check], ...] = (
        _python,
        _wheels,
        _data_dir,
        _disk,
        _memory,
        _open_files,
        _ports,
        _engine,
        _confinement,
    )
    for check in local:
        yield check(settings)
    if not settings.rpc:
        fix = "Give --rpc URL to have it checked."
        yield Check("endpoints", "warn", "none given", fix)
        return
    from infra.doctor_endpoints import check_endpoints  # noqa: PLC0415 - only where there are any

    yield from asyncio.run(check_endpoints(settings))


def from_error(name: str, error: HeadraceError) -> Check:
    """A check that ended in a coded error."""
    return Check(name, "fail", f"{error.code}: {error.what_text}", error.fix_text)


def _python(_settings: Settings) -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if sys.version_info < PYTHON_MIN:
        return Check("python", "fail", found, "Install Python 3.11 or newer.")
    return Check("python", "ok", found)


def _wheels(_settings: Settings) -> Check:
    missing = []
    for name in WHEELS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name} ({error})")
    if missing:
        fix = "Install the locked dependencies again: `make clean setup`."
        return Check("wheels", "fail", f"cannot be loaded: {', '.join(missing)}", fix)
    return Check("wheels", "ok", f"{len(WHEELS)} libraries load on {platform.platform()}")


def _data_dir(settings: Settings) -> Check:
    path = settings.data_dir.absolute()
    if not (path / STAMP).exists():
        if path.is_dir() and any(path.iterdir()):
            fix = "Choose an empty or a new directory with --data."
            return Check("data directory", "fail", f"{path} holds other files", fix)
        if not os.access(_existing(path), os.W_OK):
            fix = "Choose another with --data, or change its permissions."
            return Check("data directory", "fail", f"{path} cannot be written", fix)
        return Check("data directory", "ok", f"{path} will be made")
    try:
        chain = read_stamp(path).get("chain")
        running = find_running(path)
    except HeadraceError as error:
        return from_error("data directory", error)
    if running is not None:
        return Check("data directory", "ok", f"{path}: {chain}, run by pid {running.owner_pid}")
    if is_locked(path):
        fix = "Wait a moment; if it lasts, look for a process that hangs."
        return Check("data directory", "warn", f"{path} is locked by a starting process", fix)
    return Check("data directory", "ok", f"{path}: {chain}, not running")


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_existing(settings.data_dir.absolute())).free
    found = f"{sized(free)} free for {settings.data_dir}"
    if free >= DISK_BYTES_MIN:
        return Check("disk space", "ok", found)
    fix = "Free some, or put the data directory on another disk with --data."
    return Check("disk space", "fail" if free < DISK_BYTES_FATAL else "warn", found, fix)


def _memory(settings: Settings) -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        available = total
    limit = settings.limits.server.memory_bytes_max
    found = f"{sized(total)}, {sized(available)} unused; ClickHouse takes up to {sized(limit)}"
    if total >= MEMORY_BYTES_MIN:
        return Check("memory", "ok", found)
    fix = "Lower memory_bytes_max, queue_bytes_max and in_flight_bytes_max in [limits]."
    return Check("memory", "warn", found, fix)


def _open_files(_settings: Settings) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (hard limit {hard})"
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES_MIN:
        return Check("open files", "ok", found)
    return Check("open files", "warn", found, f"Raise it: ulimit -n {OPEN_FILES_MIN}")


def _confinement(_settings: Settings) -> Check:
    holes = open_holes()
    if not holes:
        return Check("confinement", "ok", "ClickHouse's process reaches its own folders only")
    fix = "Run Headrace as an account that owns nothing else, or on Linux 5.19 or later."
    return Check("confinement", "warn", "; ".join(holes), fix)


def _ports(settings: Settings) -> Check:
    chosen = [settings.clickhouse.tcp_port, settings.clickhouse.http_port]
    if settings.metrics_port is not None:
        chosen.append(settings.metrics_port)
    try:
        running = find_running(settings.data_dir)
        ours = {running.tcp_port, running.http_port} if running else set()
        for port in chosen:
            if port not in ours:
                check_port(HOST, port)
    except HeadraceError as error:
        return from_error("ports", error)
    fixed = [str(port) for port in chosen if port]
    return Check("ports", "ok", f"{', '.join(fixed)} free" if fixed else "chosen by the system")


def _engine(_settings: Settings) -> Check:
    try:
        check_engine()
        with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as folder:
            began = time.monotonic()
            with EmbeddedServer(Path(folder) / "data", supervise=False):
                seconds = time.monotonic() - began
    except HeadraceError as error:
        return from_error("engine", error)
    return Check("engine", "ok", f"ClickHouse starts in {seconds:.1f} s")


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return path
