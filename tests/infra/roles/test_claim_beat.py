"""A publisher that waits for something says that it lives."""

from __future__ import annotations

import threading

from infra.roles.claim_beat import ClaimBeat


def test_it_is_said_while_the_publisher_waits() -> None:
    said = threading.Semaphore(0)
    with ClaimBeat(said.release, 0.01) as beat:
        for _ in range(3):
            assert said.acquire(timeout=20)
    assert beat.failure is None


def test_what_cannot_be_said_is_a_failure() -> None:
    failed = LookupError("no broker")
    tried = threading.Event()

    def say() -> None:
        tried.set()
        raise failed

    with ClaimBeat(say, 0.01) as beat:
        assert tried.wait(20)
    assert beat.failure is failed
