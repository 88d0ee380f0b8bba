"""Fork updates and canon rows in, the publisher's metrics out."""

from __future__ import annotations

import time

import structlog

from infra.roles.role_run import RoleRun
from infra.sink_stage import HeadTimes
from schemas.segments import ForkUpdate
from sinks.canon_row import Change

log = structlog.get_logger(__name__)


class PublishMetrics:
    """Counts what a publisher shows, and how long after the node."""

    def __init__(self, run: RoleRun) -> None:
        self._latency = run.histogram("headrace_head_latency_seconds")
        self._lag = run.gauge("headrace_head_lag_blocks")
        self._reorgs = run.counter("headrace_reorgs_total")
        self._dead_letters = run.counter("headrace_dead_letters_total", "stage")
        self._times = HeadTimes()
        self._head: int | None = None

    def on_fork(self, update: ForkUpdate) -> None:
        """The reorg agent told a head."""
        self._times.remember(update.head.hash, update.observed_at_ms)
        self._head = update.head.number

    def on_row(self, change: Change) -> None:
        """A canon row was written."""
        head = change.row.head
        observed = self._times.observed_at_ms(head.hash)
        if observed is not None:
            self._latency.observe(max(0.0, time.time() - observed / 1000))
        if self._head is not None:
            self._lag.set(max(0, self._head - head.number))
        if change.reorg is not None:
            self._reorgs.inc()
            log.info(
                "reorg_applied",
                from_block=change.reorg.removed[-1].number,
                depth_blocks=len(change.reorg.removed),
            )

    def on_dead_letter(self) -> None:
        """A message was refused."""
        self._dead_letters.labels("publish").inc()
