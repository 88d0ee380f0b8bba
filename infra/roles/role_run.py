"""A role's name, settings and work in; its logs, signals, health and exit code out.

Every role of a cluster is one process that runs until it is told to stop. SIGTERM asks it to drain:
finish what is under way, commit, end with exit code 0. SIGINT does the same and ends with 130. The
second signal ends it at once, and so does a drain that takes too long: nothing is lost by that.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

from infra.allocation import settle_allocation
from infra.exit_codes import ExitCode
from infra.kafka.clients import warn_if_exposed
from infra.roles.health import Health, serve_health
from infra.roles.topic_reader import ReadStopped
from infra.settings import Settings
from schemas.errors import HeadraceError
from schemas.errors_infra import DrainTimedOut
from schemas.metrics import METRICS

log = structlog.get_logger(__name__)

STDERR = 2
DRAIN_GRACE_SECONDS = 5.0
"""Beyond the drain's own limit, before the process is ended from outside of its work."""
DRAINING = "draining"
WAKING = signal.SIGURG
"""Means nothing, but whoever waits is woken by it."""
LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)

_DECLARED = {metric.name: metric for metric in METRICS}


class RoleRun:
    """One role of this process, from its start until it has drained.

    Parameters
    ----------
    role
        Its name: ``ingest``, ``process``, ``sink`` or ``publish``.
    settings
        The process's.
    """

    def __init__(self, role: str, settings: Settings) -> None:
        self.role, self.settings = role, settings
        self.health = Health()
        """Told by the role's loops and connections."""
        self.registry = CollectorRegistry()
        """Of the role's metrics."""
        self.stopping = threading.Event()
        """Set when the role is to drain."""
        self.interrupted = False
        """Whether it was Ctrl-C."""
        self._listeners: list[Callable[[], None]] = []
        self._ended = threading.Event()
        ProcessCollector(registry=self.registry)

    # --- stopping -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the role to drain. From any thread, but from no signal handler."""
        if not self.stopping.is_set():
            log.info("role_drains", role=self.role)
            self.stopping.set()
            threading.Thread(target=self._oversee_drain, name="drain", daemon=True).start()

    def on_stop(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the role is to drain, from another thread; maybe twice."""
        self._listeners.append(listener)
        if self.stopping.is_set():
            listener()

    def stop_event(self) -> asyncio.Event:
        """An event of the running loop that is set when the role is to drain."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        self.on_stop(tell)
        return event

    def take_signals(self) -> None:
        """Let SIGTERM and SIGINT ask for the drain; only in the main thread.

        A handler may cut in anywhere, also where the main thread holds a lock: it writes a byte,
        and takes none itself. A thread that is there already does all else.

        The system may give a signal to any thread, while Python handles it in the main thread
        alone, which may wait for long. So another thread hears of each signal, and wakes that one.
        """
        heard, told = os.pipe()
        os.set_blocking(told, False)
        listener = threading.Thread(target=self._hear, args=(heard,), name="signals", daemon=True)
        listener.start()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            os.write(told, bytes([number]))

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        signal.signal(WAKING, lambda *_: None)
        came, come = os.pipe()
        os.set_blocking(come, False)
        signal.set_wakeup_fd(come, warn_on_full_buffer=False)
        main = threading.get_ident()
        threading.Thread(target=_wake, args=(came, main), name="waker", daemon=True).start()

    def _hear(self, heard: int) -> None:
        """Ask for the drain at the first signal, end at the second."""
        while True:
            (number,) = os.read(heard, 1)
            if self.stopping.is_set():
                os._exit(ExitCode.interrupted)
            self.interrupted = number == signal.SIGINT
            self.stop()

    def _oversee_drain(self) -> None:
        self.health.ready(DRAINING, met=False, note="the role is ending")
        for listener in self._listeners:
            listener()
        seconds = self.settings.roles.drain_seconds_max
        if not self._ended.wait(seconds + DRAIN_GRACE_SECONDS):
            error = DrainTimedOut(seconds=seconds)
            log.error("role_drain_timed_out", code=error.code, what=error.what_text)
            os._exit(ExitCode.failed)

    def ended(self) -> None:
        """The work is over: nothing is left to oversee."""
        self._ended.set()

    # --- metrics --------------------------------------------------------------------------------

    def counter(self, name: str, *labels: str) -> Counter:
        """A counter that schemas/metrics.py declares."""
        return Counter(name, _DECLARED[name].doc, labels, registry=self.registry)

    def gauge(self, name: str, *labels: str) -> Gauge:
        """A gauge that schemas/metrics.py declares."""
        return Gauge(name, _DECLARED[name].doc, labels, registry=self.registry)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """A histogram of seconds that schemas/metrics.py declares."""
        doc = _DECLARED[name].doc
        return Histogram(name, doc, labels, registry=self.registry, buckets=LATENCY_BUCKETS)


def _wake(came: int, main: int) -> None:
    """Wake the main thread at each signal that is to end the role."""
    while True:
        (number,) = os.read(came, 1)
        if number in (signal.SIGTERM, signal.SIGINT):
            signal.pthread_kill(main, WAKING)


def run_role(
    role: str, settings: Settings, work: Callable[[RoleRun], None], *, signals: bool = True
) -> int:
    """Run a role in this process until its work ends.

    Parameters
    ----------
    role
        Its name.
    settings
        The process's.
    work
        Returns when `RoleRun.stopping` was set and all is drained, or when there is no more to do.
    signals
        False where the work takes the signals itself.

    Returns
    -------
    int
        The exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    HeadraceError
        What the work raises; `headrace` makes its exit code of it.
    PortTaken
        If another process listens on the health port.
    """
    # SIGUSR1 shows where every thread is, also where none of them can run.
    faulthandler.register(signal.SIGUSR1, file=STDERR)
    settle_allocation()
    run = RoleRun(role, settings)
    warn_if_exposed(settings.kafka)
    if signals:
        run.take_signals()
    host, port = settings.roles.health_host, settings.roles.health_port
    with serve_health(host, port, run.health, run.registry) as chosen:
        log.info("role_started", role=role, pid=os.getpid(), health=f"http://{host}:{chosen}")
        try:
            work(run)
        except ReadStopped:
            # It was to drain while the brokers were silent; whoever comes next reads the rest.
            if not run.stopping.is_set():
                raise
        except HeadraceError as error:
            log.error(
                "role_failed",
                role=role,
                code=error.code,
                what=error.what_text,
                fix=error.fix_text,
            )
            raise
        finally:
            run.ended()
    log.info("role_ended", role=role)
    return int(ExitCode.interrupted if run.interrupted else ExitCode.ok)
