"""A local cluster's directory in; the cluster started, held, shown or ended out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from infra.chain_of_endpoints import find_chain
from infra.clickhouse.confinement import open_holes
from infra.clickhouse.datadir import write_atomically
from infra.exit_codes import ExitCode
from infra.kafka.java import find_java
from infra.local.child import answer_of
from infra.local.cluster import LocalCluster
from infra.local.directory import CLICKHOUSE, KAFKA, LocalDirectory, LocalState
from infra.local.plan import LocalPlan
from infra.local.settings_file import settings_toml
from infra.settings import Settings
from infra.terminal import Terminal, show_table
from ingest.providers import ProviderPool
from schemas.errors_local import LocalEnded, LocalNotReady, LocalWouldNotEnd

UP_SECONDS_MAX = 600.0
"""Until the servers and every role were started; the first time files are fetched."""
READY_SECONDS_MAX = 300.0
DOWN_SECONDS_MAX = 300.0
POLL_SECONDS = 0.2
SUPERVISOR_LOG = "supervisor.log"


def hold(settings: Settings, path: Path, workers: int) -> int:
    """Run the cluster in this process until SIGTERM or Ctrl-C, then let it drain."""
    asked: list[int] = []
    stopping = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stopping.is_set():
            # The second time: every child ends with this process.
            os._exit(ExitCode.interrupted)
        asked.append(number)
        stopping.set()

    settings = asyncio.run(_of_known_chain(settings))
    with LocalCluster(LocalDirectory(path), settings, LocalPlan(workers)):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        stopping.wait()
    return ExitCode.interrupted if signal.SIGINT in asked else ExitCode.ok


async def _of_known_chain(settings: Settings) -> Settings:
    """With the chain's name, which roles without an endpoint cannot find."""
    urls = [endpoint.url.get_secret_value() for endpoint in settings.rpc]
    async with ProviderPool(urls, settings.limits.ingest) as pool:
        return (await find_chain(settings, pool))[0]


def bring_up(terminal: Terminal, settings: Settings, path: Path, workers: int) -> int:
    """Start the cluster in a process of its own and wait until it is ready.

    Raises
    ------
    JavaMissing, LocalInUse, NotALocalDirectory, LocalEnded, LocalNotReady
    """
    # Here, and not only in the cluster's own process: of that one only its last words are heard.
    find_java()
    directory = LocalDirectory(path)
    directory.prepare()
    # By a file: a command line shows to everybody, and endpoints hold secrets.
    write_atomically(directory.settings, settings_toml(settings))
    told = directory.logs / SUPERVISOR_LOG
    supervisor = _detached(
        [
            *(sys.executable, "-P", "-m", "infra.cli", "local", "up", "--foreground"),
            *("--config", str(directory.settings), "--dir", str(directory.path)),
            *("--workers", str(workers)),
        ],
        told,
    )
    for hole in open_holes():
        terminal.err.print(f"not confined: {hole}", style="yellow")
    if not terminal.json:
        terminal.write_line(f"starting; the first time Kafka is fetched (see {told})")
    state = _await_ready(directory, _await_started(directory, supervisor, told))
    # Not asked once more: each of them has said that it is ready.
    ready = {one.name: (True, "") for one in state.processes}
    return _show(terminal, path, state, ready)


def _detached(command: list[str], told: Path) -> int:
    """Start a process that outlives this one; its process id. It says what it says to a file."""
    return os.posix_spawn(
        command[0],
        command,
        {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(told), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _await_started(directory: LocalDirectory, supervisor: int, told: Path) -> LocalState:
    until = time.monotonic() + UP_SECONDS_MAX
    ended = False
    while time.monotonic() < until and not ended:
        state = directory.read_state()
        if state is not None and state.ready and state.pid == supervisor:
            return state
        ended = os.waitpid(supervisor, os.WNOHANG)[0] != 0
        time.sleep(POLL_SECONDS)
    if not ended:
        os.kill(supervisor, signal.SIGTERM)
    raise LocalEnded(said=directory.last_words(told), log=str(told))


def _await_ready(directory: LocalDirectory, state: LocalState | None) -> LocalState:
    """The state in which every process could do its work."""
    start = time.monotonic()
    while time.monotonic() - start < READY_SECONDS_MAX and state is not None:
        ready = readiness(state)
        wrong = [one for one in state.processes if not ready[one.name][0]]
        if not wrong:
            return state
        if all(one.state == "failed" for one in wrong):
            break
        time.sleep(POLL_SECONDS)
        state = directory.read_state()
    if state is None:
        told = directory.logs / SUPERVISOR_LOG
        raise LocalEnded(said=directory.last_words(told), log=str(told))
    reasons = {name: why for name, (met, why) in readiness(state).items() if not met}
    logs = {one.name: one.log for one in state.processes}
    raise LocalNotReady(
        seconds=time.monotonic() - start,
        names=", ".join(f"{name} ({why})" for name, why in reasons.items()),
        said="; ".join(directory.last_words(logs[name]) for name in reasons),
        logs=str(directory.logs),
    )


def readiness(state: LocalState) -> dict[str, tuple[bool, str]]:
    """Whether each process can do its work, and why not, as it says itself."""
    found = {}
    for one in state.processes:
        if one.state == "done":
            found[one.name] = (True, "")
        elif one.state != "running":
            found[one.name] = (False, f"{one.state}, exit code {one.exit_code}")
        elif one.name in (KAFKA, CLICKHOUSE):
            found[one.name] = (True, "")
        else:
            found[one.name] = answer_of(one.address)
    return found


def show_status(terminal: Terminal, path: Path) -> int:
    """The processes of the cluster in the directory; exit code 1 where one is not ready."""
    directory = LocalDirectory(path)
    state = directory.read_state()
    if state is None:
        if terminal.json:
            terminal.write_json({"directory": str(directory.path), "up": False})
        else:
            terminal.write_line(f"no cluster is up in {directory.path}")
        return ExitCode.failed
    return _show(terminal, path, state, readiness(state))


def _show(
    terminal: Terminal, path: Path, state: LocalState, ready: Mapping[str, tuple[bool, str]]
) -> int:
    directory = LocalDirectory(path)
    if terminal.json:
        fields = asdict(state)
        for one in fields["processes"]:
            one["ready"], one["why"] = ready[one["name"]]
        terminal.write_json({"directory": str(directory.path), "up": True, **fields})
    else:
        rows = [
            (
                one.name,
                one.state if ready[one.name][0] or one.state != "running" else "not ready",
                one.pid,
                one.starts,
                one.exit_code,
                one.address.removeprefix("http://"),
                ready[one.name][1][:80] or Path(one.log).name.replace(f"{one.name}.log", ""),
            )
            for one in state.processes
        ]
        columns = ("process", "state", "pid", "starts", "exit", "address", "what")
        show_table(terminal, "local cluster", columns, rows, right=("pid", "starts", "exit"))
        terminal.write_line(f"kafka        {state.bootstrap}")
        terminal.write_line(
            f"clickhouse   {state.clickhouse_native} (native), {state.clickhouse_http}"
        )
        terminal.write_line(f"logs         {directory.logs}, a file for each role")
        terminal.write_line(f"settings     {state.settings}")
        terminal.write_line(f"query        headrace sql --data {path / CLICKHOUSE} 'SELECT …'")
        terminal.write_line(f"end          headrace local down --dir {path}")
    return ExitCode.ok if all(one for one, _ in ready.values()) else ExitCode.failed


def take_down(terminal: Terminal, path: Path, *, wipe: bool) -> int:
    """Let the cluster drain and end; with `wipe` remove what it stored.

    Raises
    ------
    LocalWouldNotEnd, NotALocalDirectory
    """
    directory = LocalDirectory(path)
    was_up = directory.held()
    if was_up:
        pid = directory.owner()
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(pid), signal.SIGTERM)
        until = time.monotonic() + DOWN_SECONDS_MAX
        while directory.held():
            if time.monotonic() > until:
                raise LocalWouldNotEnd(path=str(path), seconds=DOWN_SECONDS_MAX, pid=pid)
            time.sleep(POLL_SECONDS)
    if wipe:
        directory.wipe()
    if terminal.json:
        terminal.write_json({"directory": str(directory.path), "was_up": was_up, "wiped": wipe})
    else:
        terminal.write_line(
            ("ended" if was_up else f"no cluster is up in {directory.path}")
            + ("; what it stored is removed" if wipe else "; what it stored stays" * was_up)
        )
    return ExitCode.ok
