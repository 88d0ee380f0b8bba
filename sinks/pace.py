"""When messages were taken in, whether more of them can be expected soon out."""

from __future__ import annotations

import math

GAPS = 32
"""A silence of so many times the mean gap between messages is an end, and no gap."""
PATIENT_SECONDS = 10.0
"""A stream that goes on within so long after its end was taken for ended too soon."""


class Pace:
    """Tells the end of a stream of messages from a gap in it, by how fast they came.

    What waits for more of its kind is written once nothing more comes. After a backfill at full
    speed that is known in a fraction of a second; where messages trickle, or come by fits and
    starts, it takes longer.

    Parameters
    ----------
    silence_seconds_min, silence_seconds_max
        Between these, and nowhere else, lies the silence that is an end.
    now
        Seconds of a steady clock, as everywhere here.
    """

    def __init__(
        self, silence_seconds_min: float, silence_seconds_max: float, now: float = 0.0
    ) -> None:
        self._min, self._max = silence_seconds_min, silence_seconds_max
        self._first = self._last = self._busy = now
        self._taken = 0
        self._ended_at, self._patient = -math.inf, False

    def took(self, now: float) -> None:
        """A message was taken."""
        if not self._taken:
            self._first = now
            self._patient = now - self._ended_at < PATIENT_SECONDS
        self._taken += 1
        self._last = self._busy = now

    def was_busy(self, now: float) -> None:
        """Nobody could have taken a message until now."""
        self._busy = now

    def ended(self, now: float) -> bool:
        """Whether nothing more is to be expected soon; then it begins anew."""
        if now - self._busy < self._silence():
            return False
        if self._taken:
            self._taken, self._ended_at = 0, now
        return True

    def _silence(self) -> float:
        if self._patient or self._taken < GAPS:
            return self._max
        mean = (self._last - self._first) / self._taken
        return min(max(GAPS * mean, self._min), self._max)
