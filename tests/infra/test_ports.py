"""A port for later is one that nobody else is given meanwhile."""

from __future__ import annotations

import socket

import pytest

from infra import ports
from infra.ports import CHOICE, HOST, free_port


def test_it_can_be_listened_on() -> None:
    with socket.create_server((HOST, free_port())) as server:
        assert server.getsockname()[1] in CHOICE


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        monkeypatch.setattr(ports, "CHOICE", [taken.getsockname()[1]])
        assert free_port() != taken.getsockname()[1]
