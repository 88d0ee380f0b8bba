"""What an endpoint answered in, how fast it may be asked out: additive increase, halving.

Two bounds are learnt, both from refusals alone: requests in flight, and calls a second. The
state is plain numbers and the time is an argument, so that it can be tested without waiting.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

RATE_WINDOW_SECONDS = 1.0
"""The calls of this long are counted when a refusal teaches the rate."""
RATE_KEPT = 0.7
"""Share of the refused rate that is tried next."""
RATE_GROWTH = 0.02
"""Share by which a learnt rate grows at each success."""
RATE_GROWTH_MIN = 0.2
"""Calls a second by which it grows at least."""
RATE_MIN = 2.0
"""Calls a second below which no rate is learnt: no provider allows fewer."""
RATE_FORGET = 8.0
"""A learnt rate that has grown by this factor without a refusal is dropped."""
CUT_SECONDS = 1.0
"""Refusals this close together count as one, since they were sent at one pace."""


@dataclass(slots=True)
class Pace:
    """How fast one endpoint may be asked."""

    concurrency_max: int
    """Bound on `limit`."""
    limit: float
    """Requests that may be in flight."""
    in_flight: int = 0
    """Requests in flight."""
    calls_per_second: float | None = None
    """Rate learnt from refusals; None while none is known."""
    paused_until: float = 0.0
    """Not asked before this time, after a failure or a refusal."""
    refused_until: float = 0.0
    """Not asked before this time, after a refusal for the rate."""
    failures_in_row: int = 0
    """Failures since the last success; those of one burst count once."""
    _sent: deque[tuple[float, int]] = field(default_factory=deque)
    _learnt_rate: float = 0.0
    _next_at: float = 0.0
    _cut_at: float = -1e9

    def ready_at(self, now: float, reserve: int = 0, *, urgent: bool = False) -> float | None:
        """When a request may start: `now` or later; None while too many are in flight.

        Parameters
        ----------
        now : float
            The time, seconds.
        reserve : int
            Places kept free for others, where there is more than one place.
        urgent : bool
            Obey refusals for the rate only: neither rests after failures nor requests in flight.
        """
        if urgent:
            return max(now, self.refused_until, self._next_at)
        places = int(self.limit)
        places -= reserve if places > reserve else 0
        if self.in_flight >= places:
            return None
        return max(now, self.paused_until, self._next_at)

    def begin(self, now: float, calls: int) -> None:
        """A request of `calls` calls starts."""
        self.in_flight += 1
        self._sent.append((now, calls))
        self._forget(now)
        if self.calls_per_second is not None:
            self._next_at = max(now, self._next_at) + calls / self.calls_per_second

    def succeed(self) -> None:
        """A request was answered."""
        if self.in_flight > self.limit / 2:
            self.limit = min(float(self.concurrency_max), self.limit + 1.0 / self.limit)
        self.in_flight -= 1
        self.failures_in_row = 0
        # It is back: what failed before is no reason to wait any longer.
        self.paused_until = self.refused_until
        if self.calls_per_second is not None:
            self.calls_per_second += max(RATE_GROWTH_MIN, RATE_GROWTH * self.calls_per_second)
            if self.calls_per_second > self._learnt_rate * RATE_FORGET:
                self.calls_per_second, self._next_at = None, 0.0

    def refuse(self, now: float, wait_seconds: float) -> None:
        """A request was refused for its rate; the endpoint rests for `wait_seconds`."""
        self.in_flight -= 1
        self.refused_until = max(self.refused_until, now + wait_seconds)
        self.paused_until = max(self.paused_until, self.refused_until)
        if not self._cut(now):
            return
        self._forget(now)
        calls = sum(count for _, count in self._sent)
        observed = max(1.0, calls / RATE_WINDOW_SECONDS)
        current = self.calls_per_second
        self._learnt_rate = max(
            RATE_MIN, RATE_KEPT * (observed if current is None else min(observed, current))
        )
        self.calls_per_second = self._learnt_rate

    def fail(self, now: float, rest_seconds: float) -> None:
        """A request failed otherwise; the endpoint rests for `rest_seconds`."""
        self.in_flight -= 1
        # Requests that were in flight together fail together: that is one failure.
        self.failures_in_row += now >= self.paused_until
        self.paused_until = max(self.paused_until, now + rest_seconds)
        self._cut(now)

    def abandon(self) -> None:
        """A request was cancelled, or failed through no fault of the endpoint's pace."""
        self.in_flight -= 1

    def _cut(self, now: float) -> bool:
        if now - self._cut_at < CUT_SECONDS:
            return False
        self._cut_at = now
        self.limit = max(1.0, self.limit / 2)
        return True

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] < now - RATE_WINDOW_SECONDS:
            self._sent.popleft()
