"""Chores end in bounded time: whoever stops them says how long he waits."""

from __future__ import annotations

import threading
from typing import Any, cast

from sinks.upkeep import Upkeep
from tests.patience import PATIENCE_SECONDS


class Chore:
    """A chore that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def run_once(self) -> list[Any]:
        self.begun.set()
        self.let_go.wait(PATIENCE_SECONDS)
        return []


def test_a_stop_waits_for_the_chore_at_hand_no_longer_than_asked() -> None:
    chore, next_chore = Chore(), Chore()
    upkeep = Upkeep(cast("Any", chore), cast("Any", next_chore), cast("Any", next_chore))
    upkeep.start()
    assert chore.begun.wait(PATIENCE_SECONDS)
    assert not upkeep.stop(0.01)
    chore.let_go.set()
    assert upkeep.stop(PATIENCE_SECONDS)
    assert not next_chore.begun.is_set()
    assert upkeep.stop()
