"""A publisher that waits for something says that it lives."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from infra.roles import claim_beat
from infra.roles.claim_beat import STILL_SECONDS_MAX, ClaimBeat
from tests.patience import PATIENCE_SECONDS


def test_it_is_said_while_the_publisher_waits() -> None:
    said = threading.Semaphore(0)
    with ClaimBeat(said.release, 0.01) as beat:
        for _ in range(3):
            assert said.acquire(timeout=PATIENCE_SECONDS)
    assert beat.failure is None


def test_what_cannot_be_said_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_beat, "END_SECONDS_MAX", PATIENCE_SECONDS)
    failed = LookupError("no broker")
    tried = threading.Event()

    def say() -> None:
        tried.set()
        raise failed

    with ClaimBeat(say, 0.01) as beat:
        assert tried.wait(PATIENCE_SECONDS)
    assert beat.failure is failed


def test_a_main_loop_that_stands_still_is_not_said_to_live() -> None:
    now = [0.0]
    said, looked = threading.Semaphore(0), threading.Semaphore(0)

    def clock() -> float:
        looked.release()
        return now[0]

    with capture_logs() as logs, ClaimBeat(said.release, 0.01, clock) as beat:
        now[0] = 2 * STILL_SECONDS_MAX
        # Before the first step it takes up what is there.
        assert said.acquire(timeout=PATIENCE_SECONDS)
        beat.step()
        assert said.acquire(timeout=PATIENCE_SECONDS)
        now[0] *= 2
        while not any(one["event"] == "publisher_stands_still" for one in logs):
            assert looked.acquire(timeout=PATIENCE_SECONDS)
        while said.acquire(blocking=False):
            pass
        for _ in range(3):
            assert looked.acquire(timeout=PATIENCE_SECONDS)
        assert not said.acquire(blocking=False)
        beat.step()
        assert said.acquire(timeout=PATIENCE_SECONDS)
    assert beat.failure is None


def test_the_end_does_not_wait_for_a_word_that_cannot_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claim_beat, "END_SECONDS_MAX", 0.01)
    saying, may_end = threading.Event(), threading.Event()

    def say() -> None:
        saying.set()
        may_end.wait()

    with ClaimBeat(say, 0.01):
        assert saying.wait(PATIENCE_SECONDS)
    may_end.set()
