"""Beats and conditions of a role in, its answers to `/healthz`, `/readyz`, `/metrics` out."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from infra.ports import check_port

BEAT_SECONDS_MAX = 120.0
"""How long a loop may go without a beat before the process counts as stuck."""


@dataclass(slots=True)
class _Beat:
    at: float
    seconds_max: float


@dataclass(slots=True)
class _Condition:
    met: bool
    note: str


class Health:
    """Whether a role's loops go round, and whether it can do its work; for any thread.

    Parameters
    ----------
    clock
        Seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, _Beat] = {}
        self._conditions: dict[str, _Condition] = {}

    def beat(self, loop: str, seconds_max: float = BEAT_SECONDS_MAX) -> None:
        """Say that a loop went round, and how long its next turn may take at most."""
        with self._lock:
            self._beats[loop] = _Beat(self._clock(), seconds_max)

    def end_beat(self, loop: str) -> None:
        """A loop has ended as it should."""
        with self._lock:
            self._beats.pop(loop, None)

    def expect(self, *conditions: str) -> None:
        """What has to be met before the role can do its work."""
        for condition in conditions:
            self.ready(condition, met=False, note="not yet")

    def ready(self, condition: str, *, met: bool = True, note: str = "") -> None:
        """Whether a condition is met, and why not."""
        with self._lock:
            self._conditions[condition] = _Condition(met, note)

    def stuck(self) -> dict[str, float]:
        """Loops that stand still, each with the seconds since its last beat."""
        with self._lock:
            now = self._clock()
            late = {name: now - beat.at for name, beat in self._beats.items()}
            return {name: age for name, age in late.items() if age > self._beats[name].seconds_max}

    def unmet(self) -> dict[str, str]:
        """Conditions that are not met, each with the reason."""
        with self._lock:
            return {name: one.note for name, one in self._conditions.items() if not one.met}


@contextlib.contextmanager
def serve_health(
    host: str, port: int, health: Health, registry: CollectorRegistry
) -> Iterator[int]:
    """Serve while the context lasts; gives the port, chosen where it is 0.

    Raises
    ------
    PortTaken
    """
    check_port(host, port)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path in ("/healthz", "/readyz"):
                wrong: dict[str, Any] = health.stuck()
                if path == "/readyz":
                    wrong |= health.unmet()
                body = json.dumps({"ok": not wrong, "wrong": wrong}).encode() + b"\n"
                self._answer(503 if wrong else 200, "application/json", body)
            else:
                self._answer(404, "text/plain", b"/healthz, /readyz or /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Probes come every second: they are not logged."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
