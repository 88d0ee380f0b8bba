"""A publisher's word that it lives in, said in time whatever else the publisher waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from sinks.claims import BEAT_SECONDS

log = structlog.get_logger(__name__)

STILL_SECONDS_MAX = 300.0
"""So long the main loop may stand still, before it is no longer said that the publisher lives.

A publisher that was merely slow loses nothing by it: another one claims with a higher generation,
the rows of this one sort lower from then on and are never seen, and it ends when it hears of it.
"""
END_SECONDS_MAX = 5.0
"""How long the end waits for a word under way; what it says after that belongs to no owner."""


class ClaimBeat:
    """Says at intervals that a publisher lives, in a thread of its own, while the context lasts.

    Once the main loop goes round it has to go on: one that stands still for `STILL_SECONDS_MAX`
    lives in name only, and its place is free for another.

    Nothing that a publisher does may keep it from that for as long as its claim may be silent: not
    the ledger that it takes up after the claim, not a server that answers slowly. Two that took
    the chain from each other for such a silence would go on with it for ever.

    Parameters
    ----------
    say
        Says it.
    seconds
        The interval.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self,
        say: Callable[[], None],
        seconds: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failure: BaseException | None = None
        """Why it could not be said."""
        self._say, self._seconds, self._clock = say, seconds, clock
        self._stepped_at: float | None = None
        self._still = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claim-beat", daemon=True)

    def __enter__(self) -> ClaimBeat:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join(END_SECONDS_MAX)

    def step(self) -> None:
        """The main loop goes round."""
        self._stepped_at = self._clock()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._seconds):
                if self._goes_round():
                    self._say()
        except BaseException as error:  # noqa: BLE001 - a dead thread must end the role
            self.failure = error

    def _goes_round(self) -> bool:
        stepped_at = self._stepped_at
        still = stepped_at is not None and self._clock() - stepped_at > STILL_SECONDS_MAX
        if still and not self._still:
            log.error("publisher_stands_still", seconds=STILL_SECONDS_MAX)
        self._still = still
        return not still
