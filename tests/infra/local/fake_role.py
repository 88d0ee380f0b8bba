"""Stands in for a role: ready at once, drains on SIGTERM, obeys the file named by its last word."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from infra.roles.health import Health, serve_health


def main() -> int:
    health, stopping = Health(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    port = int(os.environ["HEADRACE_ROLES__HEALTH_PORT"])
    behaviour = Path(sys.argv[1])
    said = behaviour.read_text() if behaviour.exists() else "stay"
    if said == "fail":
        print("out of luck", flush=True)
        return 5
    if said == "usage":
        return 2
    if said == "end":
        return 0
    if said == "unready":
        health.expect("kafka")
    if said == "stuck":
        health.beat("loop", 0.0)
    with serve_health("127.0.0.1", port, health, CollectorRegistry()):
        print(os.environ["HEADRACE_KAFKA__INSTANCE"], sys.argv[2:], flush=True)
        while not stopping.is_set():
            time.sleep(0.02)
    print("drained", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
