"""Turns: one thread computes at a time, and none holds the others up while it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from infra.turns import Turns
from tests.infra.stage_inputs import SOON


def begin(work: Callable[[], None]) -> threading.Thread:
    """Start a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_only_one_thread_computes_at_a_time() -> None:
    turns, inside, seen = Turns(), list[int](), list[int]()

    def work() -> None:
        for _ in range(200):
            with turns.take():
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [begin(work) for _ in range(4)]
    for thread in threads:
        thread.join(SOON)
    assert seen == [1] * 800


def test_another_computes_while_the_holder_waits() -> None:
    turns, done = Turns(), threading.Event()

    def work() -> None:
        with turns.take():
            done.set()

    with turns.take():
        thread = begin(work)
        assert not done.is_set()
        with turns.leave():
            assert done.wait(SOON)
            thread.join(SOON)
        assert turns.held


def test_who_has_no_turn_leaves_none() -> None:
    turns, entered, left = Turns(), threading.Event(), threading.Event()

    def hold() -> None:
        with turns.take():
            entered.set()
            left.wait(SOON)

    thread = begin(hold)
    assert entered.wait(SOON)
    with turns.leave():
        assert not turns.held
    left.set()
    thread.join(SOON)
    with turns.take():
        assert turns.held


def test_a_turn_ends_with_what_failed_in_it() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns.take():
        raise ValueError("inside")
    with pytest.raises(ValueError, match="away"), turns.take(), turns.leave():
        raise ValueError("away")
    with turns.take():
        turns.sleep(0.0)
        assert turns.held
    assert not turns.held
