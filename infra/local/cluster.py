"""A directory and settings in, a supervised cluster on this machine out.

A Kafka broker, an embedded ClickHouse and a process for each role, all children of this process.
Those that die are started again; all of them end when this process does, however it ends.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import structlog
from pydantic import SecretStr

from infra.clickhouse.datadir import write_atomically
from infra.clickhouse.server import EmbeddedServer
from infra.kafka.admin import alter_topics, connect, create_topics
from infra.kafka.broker import LocalBroker
from infra.local.child import RoleCommand, RoleProcess
from infra.local.directory import (
    CLICKHOUSE,
    KAFKA,
    LocalDirectory,
    LocalState,
    ProcessState,
)
from infra.local.health_watch import restart_unhealthy
from infra.local.plan import DRAIN_ORDER, LocalPlan, cluster_roles, worker
from infra.local.settings_file import settings_toml
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from schemas.errors import HeadraceError
from schemas.errors_embedded import ServerGone
from schemas.errors_local import LocalNotReady, LocalStepFailed
from sinks.connection import Endpoint

log = structlog.get_logger(__name__)

TEND_SECONDS = 0.2
STEP_SECONDS_MAX = 300.0
DRAIN_GRACE_SECONDS = 10.0
RETENTION_BYTES = 256 * 1024 * 1024
"""Of a partition, where the settings say nothing: one machine's disk is no cluster's."""


class LocalCluster:
    """A cluster; used as a context manager, or by `start` and `stop`.

    Parameters
    ----------
    directory
        Its data, logs and state file; made where it is missing.
    settings
        What the roles are told; Kafka's and ClickHouse's addresses are filled in.
    plan
        What it is made of.
    """

    def __init__(
        self,
        directory: LocalDirectory,
        settings: Settings,
        plan: LocalPlan | None = None,
    ) -> None:
        self.directory = directory
        self.plan = plan or LocalPlan()
        self._given = settings
        self.broker = LocalBroker(directory.path / KAFKA, size=self.plan.broker)
        self.clickhouse = EmbeddedServer(
            directory.path / CLICKHOUSE,
            settings.clickhouse.tcp_port,
            settings.clickhouse.http_port,
            chain=settings.chain,
            limits=settings.limits.server,
            on_event=self._count_restart,
        )
        self.roles: dict[str, RoleProcess] = {}
        """Every role's process by its name."""
        self._wanted = {KAFKA: False, CLICKHOUSE: False}
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")
        }
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._ready = False
        self._starts = {KAFKA: 0, CLICKHOUSE: 0}

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(drain=kind is None)

    # --- what it is -----------------------------------------------------------------------------

    @property
    def kafka(self) -> KafkaSettings:
        """The settings of its brokers."""
        given = self._given.kafka
        kept = given.retention_bytes
        if kept == KafkaSettings.model_fields["retention_bytes"].default:
            kept = RETENTION_BYTES
        return given.model_copy(
            update={"bootstrap": (self.broker.bootstrap,), "retention_bytes": kept}
        )

    @property
    def settings(self) -> Settings:
        """The settings of its roles."""
        password = quote(self.clickhouse.password, safe="")
        address = f"{self.clickhouse.host}:{self.clickhouse.tcp_port}"
        clickhouse = self._given.clickhouse.model_copy(
            update={"url": SecretStr(f"clickhouse://headrace:{password}@{address}")}
        )
        return self._given.model_copy(update={"kafka": self.kafka, "clickhouse": clickhouse})

    def endpoint(self, user: str = "headrace", database: str = "") -> Endpoint:
        """Where ClickHouse is, and as whom to log in."""
        return self.clickhouse.endpoint(user, database)

    def state(self) -> LocalState:
        """What runs now."""
        with self._lock:
            server, native = self.clickhouse, f"{self.clickhouse.host}:{self.clickhouse.tcp_port}"
            bootstrap, log_path = self.broker.bootstrap, server.data_dir / "run" / "child.log"
            server_pid = server.pid if server.alive else None
            return LocalState(
                pid=os.getpid(),
                ready=self._ready,
                bootstrap=bootstrap,
                clickhouse_native=native,
                clickhouse_http=server.http_url,
                settings=str(self.directory.settings),
                processes=(
                    self._server_state(KAFKA, self.broker.pid, bootstrap, self.broker.log),
                    self._server_state(CLICKHOUSE, server_pid, native, log_path),
                    *(role.snapshot() for role in self.roles.values()),
                ),
            )

    def _server_state(self, name: str, pid: int | None, address: str, told: Path) -> ProcessState:
        wanted = self._wanted[name]
        state = "running" if pid else "restarting" if wanted else "stopped"
        return ProcessState(name, state, pid, self._starts[name], None, address, str(told))

    # --- start and stop -------------------------------------------------------------------------

    def start(self) -> LocalCluster:
        """Start all of it: servers, topics, tables, roles. Roles may need a moment to be ready.

        Raises
        ------
        HeadraceError
            What keeps a server or a step from succeeding; nothing is left running.
        """
        self.directory.own()
        try:
            self.start_broker()
            self.start_clickhouse()
            write_atomically(self.directory.settings, settings_toml(self.settings))
            admin = connect(self.kafka)
            create_topics(self.kafka, admin)
            alter_topics(self.kafka, admin)
            for step in self.plan.steps:
                self._run_step(step)
            for role in (self.plan.roles or cluster_roles)(self.plan.workers):
                self._add(role)
        except BaseException:
            self.stop(drain=False)
            raise
        self._ready = True
        self._tell()
        self._supervisor = threading.Thread(target=self._supervise, name="local", daemon=True)
        self._supervisor.start()
        return self

    def stop(self, *, drain: bool = True) -> None:
        """End all of it; what is stored stays.

        Parameters
        ----------
        drain
            Whether roles may finish what is under way; else they are killed.
        """
        self._stopping.set()
        if self._supervisor is not None:
            self._supervisor.join()
        if drain:
            for kind in DRAIN_ORDER:
                self._drain([role for name, role in self.roles.items() if name.startswith(kind)])
        self._drain(list(self.roles.values()), seconds=DRAIN_GRACE_SECONDS if drain else 0.0)
        self.stop_clickhouse(kill=not drain)
        self.stop_broker(kill=not drain)
        self.directory.release()

    def _drain(self, roles: list[RoleProcess], seconds: float | None = None) -> None:
        if seconds is None:
            seconds = self._given.roles.drain_seconds_max + DRAIN_GRACE_SECONDS
        for role in roles:
            role.terminate()
        until = time.monotonic() + seconds
        for role in roles:
            if not role.wait(until - time.monotonic()):
                log.warning("role_killed", name=role.role.name, after_seconds=seconds)
                role.kill()
        if roles:
            self._tell()

    def _run_step(self, step: str) -> None:
        told = self.directory.logs / f"{step}.log"
        command = RoleCommand(step, (step,))
        with told.open("wb") as out:
            done = subprocess.run(
                [*command.program, step, "--config", str(self.directory.settings)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environ,
                timeout=STEP_SECONDS_MAX,
                check=False,
            )
        if done.returncode != 0:
            said = self.directory.last_words(told)
            raise LocalStepFailed(step=step, exit_code=done.returncode, said=said, log=str(told))

    # --- its parts, for whoever wants to disturb it ---------------------------------------------

    def start_broker(self) -> None:
        """Start the broker, at the address that it had."""
        with self._lock:
            self._wanted[KAFKA] = True
            if not self.broker.alive:
                self.broker.start()
                self._starts[KAFKA] += 1
            self._tell()

    def stop_broker(self, *, kill: bool = False) -> None:
        """Stop the broker, or kill it; it stays away until `start_broker`."""
        with self._lock:
            self._wanted[KAFKA] = False
            if kill:
                self.broker.kill()
            else:
                self.broker.stop()

    def start_clickhouse(self) -> None:
        """Start ClickHouse, on the ports that it had."""
        with self._lock:
            if not self._wanted[CLICKHOUSE]:
                self.clickhouse.start()
                self._starts[CLICKHOUSE] += 1
                self._wanted[CLICKHOUSE] = True
            self._tell()

    def stop_clickhouse(self, *, kill: bool = False) -> None:
        """Stop ClickHouse, or kill it; it stays away until `start_clickhouse`."""
        with self._lock:
            if self._wanted[CLICKHOUSE]:
                self._wanted[CLICKHOUSE] = False
                if kill:
                    self.clickhouse.kill()
                else:
                    self.clickhouse.stop()

    def kill(self, name: str) -> None:
        """Kill a role as kill -9 does; it is started again after a moment."""
        with self._lock:
            self.roles[name].kill()

    def stop_role(self, name: str) -> None:
        """Let a role drain and end; it stays away until `start_role`."""
        with self._lock:
            self._drain([self.roles[name]])

    def start_role(self, name: str) -> None:
        """Start a role that was stopped, is done or waits for its next start."""
        with self._lock:
            self.roles[name].start()
            self._tell()

    def add_worker(self, kind: str) -> str:
        """One more of ``process-history``, ``process-head`` or ``sink``; returns its name."""
        with self._lock:
            number = 0
            while f"{kind}-{number}" in self.roles:
                number += 1
            self._add(worker(kind, number))
            self._tell()
            return f"{kind}-{number}"

    def remove_worker(self, name: str) -> None:
        """Let a worker drain, for good."""
        with self._lock:
            self.stop_role(name)
            del self.roles[name]
            self._tell()

    def _add(self, role: RoleCommand) -> None:
        # A role's own command line comes first, so that a test may run any program.
        arguments = (*role.arguments, "--config", str(self.directory.settings))
        command = RoleCommand(role.name, arguments, role.ends, role.program)
        self.roles[role.name] = RoleProcess(command, self.directory.logs, self._environ)
        self.roles[role.name].start()

    # --- watching -------------------------------------------------------------------------------

    def await_ready(self, seconds: float) -> None:
        """Wait until every role says that it can do its work.

        Raises
        ------
        LocalNotReady
        """
        until = time.monotonic() + seconds
        while True:
            unready = dict(self.unready())
            if not unready:
                return
            if time.monotonic() > until:
                raise LocalNotReady(
                    seconds=seconds,
                    names=", ".join(f"{name} ({why})" for name, why in unready.items()),
                    said="; ".join(
                        self.directory.last_words(self.roles[name].log) for name in unready
                    ),
                    logs=str(self.directory.logs),
                )
            time.sleep(TEND_SECONDS)

    def unready(self) -> Iterator[tuple[str, str]]:
        """Roles that cannot do their work now, each with the reason."""
        with self._lock:
            roles = dict(self.roles)
        for name, role in roles.items():
            ready, why = role.ready()
            if not ready:
                yield name, why

    def _supervise(self) -> None:
        # A thread of its own: a role that does not answer must not delay the others' restarts.
        limit = self._given.roles.unhealthy_seconds_max
        watched = (self.roles, self._lock, self._stopping, limit)
        health = threading.Thread(target=restart_unhealthy, args=watched, daemon=True)
        health.start()
        told: tuple[ProcessState, ...] = ()
        while not self._stopping.wait(TEND_SECONDS):
            with self._lock:
                for role in self.roles.values():
                    role.tend()
                try:
                    self._tend_servers()
                except HeadraceError as error:
                    # The next turn tries again.
                    log.warning("server_not_started", code=error.code, what=error.what_text)
                if (processes := self.state().processes) != told:
                    told = processes
                    self._tell()
        health.join()

    def _tend_servers(self) -> None:
        """Start servers again that have died; ClickHouse's own supervision gives up some time."""
        if self._wanted[KAFKA] and not self.broker.alive:
            log.warning("broker_died", log=str(self.broker.log))
            self.start_broker()
        if self._wanted[CLICKHOUSE]:
            try:
                self.clickhouse.check()
            except ServerGone as error:
                log.warning("clickhouse_died", code=error.code, what=error.what_text)
                self.clickhouse.kill()
                self.clickhouse.start()
                self._starts[CLICKHOUSE] += 1

    def _count_restart(self, event: str, _exit_code: int | None) -> None:
        if event == "restarted":
            self._starts[CLICKHOUSE] += 1

    def _tell(self) -> None:
        self.directory.write_state(self.state())
