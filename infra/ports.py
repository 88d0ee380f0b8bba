"""Nothing in, a port of loopback out, for a server that is started a little later."""

from __future__ import annotations

import contextlib
import secrets
import socket

HOST = "127.0.0.1"
"""Loopback: what is started here listens there, unless it is told to elsewhere."""

CHOICE = range(10_000, 32_768)
"""Below the ports that systems give to connections and to whoever asks for any: none of these takes
one that was chosen here before its server listens, or while its server is away."""
TRIES_MAX = 1000


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        for _ in range(TRIES_MAX):
            with contextlib.suppress(OSError):
                probe.bind((HOST, secrets.choice(CHOICE)))
                break
        else:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
