"""A command in, a process out that is started again whenever it dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from infra import leash
from infra.exit_codes import ExitCode
from infra.local.directory import ProcessState
from infra.ports import HOST, free_port

log = structlog.get_logger(__name__)

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 15.0
STEADY_SECONDS = 30.0
"""After so long without dying, the next pause is the shortest again."""
ASK_SECONDS_MAX = 2.0

State = Literal["running", "restarting", "done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class RoleCommand:
    """A role of the cluster that runs as one process."""

    name: str
    """Its name in the cluster, also its stable name as a member of consumer groups."""
    arguments: tuple[str, ...]
    """The command line after `headrace`."""
    ends: bool = False
    """Whether exit code 0 means that it has done its work."""
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "infra.cli")
    """What is run."""


class RoleProcess:
    """One role as a child process; it ends when the process that started it is gone.

    Nothing here starts threads: `tend` is called again and again by whoever supervises.

    Parameters
    ----------
    role
        What to run.
    logs
        The folder of its log.
    environ
        The environment; the health port and the instance are added.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self,
        role: RoleCommand,
        logs: Path,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.role = role
        self.log = logs / f"{role.name}.log"
        self.state: State = "stopped"
        self.starts = 0
        self.exit_code: int | None = None
        self.health_port = 0
        self._environ = environ
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._due_at = self._healthy_at = 0.0
        self._pause = PAUSE_SECONDS_MIN

    @property
    def pid(self) -> int | None:
        """Process id of the leash; None while it does not run."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def health_url(self) -> str:
        """Where `/healthz`, `/readyz` and `/metrics` are."""
        return f"http://{HOST}:{self.health_port}"

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.alive:
            return
        # Another one each time: the old one may have been taken since.
        self.health_port = free_port()
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", leash.__file__),
                    *self.role.program,
                    *self.role.arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={
                    **self._environ,
                    "HEADRACE_KAFKA__INSTANCE": self.role.name,
                    "HEADRACE_ROLES__HEALTH_PORT": str(self.health_port),
                },
                start_new_session=True,
            )
        self.state = "running"
        self.starts += 1
        self._started_at = self._healthy_at = self._clock()

    def tend(self) -> bool:
        """Start it again where it has died and its pause is over; whether anything changed."""
        now = self._clock()
        if self.state == "running" and not self.alive:
            assert self._process is not None
            self.exit_code = self._process.returncode
            self._close()
            self.state = self._after(self.exit_code)
            if self.state == "restarting":
                if now - self._started_at > STEADY_SECONDS:
                    self._pause = PAUSE_SECONDS_MIN
                self._due_at = now + self._pause
                self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)
            log.info("role_ended", name=self.role.name, exit_code=self.exit_code, state=self.state)
            return True
        if self.state == "restarting" and now >= self._due_at:
            self.start()
            return True
        return False

    def _after(self, exit_code: int) -> State:
        if exit_code == ExitCode.ok and self.role.ends:
            return "done"
        # Settings do not mend themselves.
        return "failed" if exit_code == ExitCode.usage else "restarting"

    def terminate(self) -> None:
        """Ask it to drain and end, for good."""
        self.state = "stopped"
        if self._process is not None and self.alive:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.exit_code = self._process.wait(max(0.0, seconds))
            self._close()
            return True
        return False

    def kill(self) -> None:
        """Kill it as kill -9 does; `tend` starts it again, unless it was asked to end."""
        self._close()
        if self._process is not None:
            self._process.wait()

    def _close(self) -> None:
        # The leash kills the role when this closes, and waits for its end.
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def ready(self) -> tuple[bool, str]:
        """Whether it can do its work, and why not."""
        if self.state == "done":
            return True, ""
        if not self.alive:
            return False, f"{self.state}, exit code {self.exit_code}"
        return answer_of(self.health_url)

    def unhealthy(self) -> tuple[float, str]:
        """For how many seconds its health check has failed without a break, and why.

        The time until its first answer counts. A role that does not run is nobody's to judge.
        """
        if self.state != "running" or not self.alive:
            return 0.0, ""
        healthy, why = answer_of(self.health_url, "/healthz")
        if healthy:
            self._healthy_at = self._clock()
            return 0.0, ""
        return self._clock() - self._healthy_at, why

    def snapshot(self) -> ProcessState:
        """Its line of the state file."""
        return ProcessState(
            self.role.name,
            self.state,
            self.pid,
            self.starts,
            self.exit_code,
            self.health_url,
            str(self.log),
        )


def answer_of(health_url: str, path: str = "/readyz") -> tuple[bool, str]:
    """What a role's `/readyz` or `/healthz` answers: whether all is well, and why not."""
    host, _, port = health_url.removeprefix("http://").partition(":")
    asking = http.client.HTTPConnection(host, int(port), timeout=ASK_SECONDS_MAX)
    try:
        asking.request("GET", path)
        answer = asking.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return False, str(error)
    finally:
        asking.close()
    return answer.status == http.HTTPStatus.OK, _wrong(body)


def _wrong(body: bytes) -> str:
    try:
        wrong = json.loads(body)["wrong"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
    return ", ".join(f"{name}: {note}" for name, note in wrong.items())
