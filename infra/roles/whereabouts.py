"""A process in, the name of where it runs out; the name and number of another in, is it gone out.

A number of a process says nothing without its namespace: in each container the first process is 1,
and containers on one host's network share the host's name.
"""

from __future__ import annotations

import os
import socket
from hashlib import blake2s
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


def whereabouts(boot_id: Path = BOOT_ID, namespace: Path = PID_NAMESPACE) -> str:
    """The host's name and a mark of its boot and of our namespace of processes.

    The files are Linux's; elsewhere there are no such namespaces, and the name must do.
    """
    host = socket.gethostname()
    try:
        said = f"{boot_id.read_text()} {namespace.readlink()}"
    except OSError:
        return host
    return f"{host}:{blake2s(said.encode(), digest_size=4).hexdigest()}"


def is_gone(place: str, pid: int, here: str) -> bool:
    """Whether a process that ran at `place` has ended, as seen from `here`.

    Of any other place nothing is known. A process of our own number ran before us.
    """
    if place != here:
        return False
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
