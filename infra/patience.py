"""A call that may find ClickHouse restarting in, its result out once ClickHouse is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from schemas.errors import Transient

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 120.0
"""How long a call is repeated; the embedded server is back within seconds."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.1, 2.0

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    stopping: threading.Event | None = None,
    seconds: float = PATIENCE_SECONDS,
) -> T:
    """Call until it no longer fails for a passing reason.

    Parameters
    ----------
    call
        What may be repeated after it failed half-way.
    stopping
        Set when nobody wants the result any more.
    seconds
        How long to repeat it.

    Raises
    ------
    HeadraceError
        A Permanent one; a Transient one when the time is up or `stopping` is set.
    """
    until = time.monotonic() + seconds
    pause = PAUSE_SECONDS_MIN
    wait = (stopping or threading.Event()).wait
    while True:
        try:
            return call()
        except Transient as error:
            if time.monotonic() + pause > until or wait(pause):
                raise
            log.info("tried_again", code=error.code)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
