"""Choose and check the ports of loopback for servers that start a little later."""

from __future__ import annotations

import contextlib
import secrets
import socket

from schemas.errors_embedded import PortTaken

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


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on.

    Raises
    ------
    PortTaken
    """
    if port == 0:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(host=host, port=port) from error
