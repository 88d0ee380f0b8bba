"""Count what a publisher shows, and how far it is behind the node."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import structlog

from infra.roles.role_run import RoleRun
from infra.sink_stage import HeadTimes
from schemas.segments import ForkUpdate
from sinks.canon_row import Change

log = structlog.get_logger(__name__)


class PublishMetrics:
    """Counts what a publisher shows, and how long after the node.

    Lag and age are computed at each scrape: they rise while nothing is shown.
    """

    def __init__(self, run: RoleRun, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._latency = run.histogram("headrace_head_latency_seconds")
        run.gauge("headrace_head_lag_blocks").set_function(self._lag_blocks)
        run.gauge("headrace_head_age_seconds").set_function(self._age_seconds)
        self._reorgs = run.counter("headrace_reorgs_total")
        self._dead_letters = run.counter("headrace_dead_letters_total", "stage")
        self._times = HeadTimes()
        self._head: int | None = None
        self._shown: int | None = None
        self._shown_at = math.nan

    def on_fork(self, update: ForkUpdate) -> None:
        """The reorg agent told a head."""
        self._times.remember(update.head.hash, update.observed_at_ms)
        self._head = update.head.number

    def on_row(self, change: Change) -> None:
        """A canon row was written."""
        head = change.row.head
        observed = self._times.observed_at_ms(head.hash)
        if observed is not None:
            self._latency.observe(max(0.0, self._clock() - observed / 1000))
        if head.number != self._shown:
            self._shown = head.number
            self._shown_at = self._clock() if observed is None else observed / 1000
        if change.reorg is not None:
            self._reorgs.inc()
            log.info(
                "reorg_applied",
                from_block=change.reorg.removed[-1].number,
                depth_blocks=len(change.reorg.removed),
            )

    def _lag_blocks(self) -> float:
        if self._head is None or self._shown is None:
            return 0
        return max(0, self._head - self._shown)

    def _age_seconds(self) -> float:
        # A standby shows nothing, so it has no age; the alert takes the lowest of a chain.
        return self._clock() - self._shown_at

    def on_dead_letter(self) -> None:
        """A message was refused."""
        self._dead_letters.labels("publish").inc()
