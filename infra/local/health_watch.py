"""Restart roles whose health check keeps failing."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from infra.local.child import RoleProcess

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 1.0
"""Pause between two rounds of checks."""


def restart_unhealthy(
    roles: Mapping[str, RoleProcess],
    lock: threading.RLock,
    stopping: threading.Event,
    seconds_max: float,
) -> None:
    """Kill roles whose `/healthz` fails for longer than `seconds_max`, until `stopping` is set.

    The supervisor starts a killed role again. The lock guards `roles` and every start and end; it
    is not held while a role is asked.
    """
    while not stopping.wait(HEALTH_SECONDS):
        with lock:
            asked = [(role, role.starts) for role in roles.values()]
        for role, starts in asked:
            seconds, why = role.unhealthy()
            if seconds <= seconds_max:
                continue
            with lock:
                # It may have ended, or been started again, while it was asked.
                same = role.starts == starts and role.state == "running"
                if same and not stopping.is_set():
                    name = role.role.name
                    log.warning("role_unhealthy", name=name, seconds=round(seconds), why=why)
                    role.kill()
