"""The parts of an ingester in, snapshots for its display and its metrics out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from infra.health import memory_bytes, provider_progress
from infra.progress import Phase, Progress, StageProgress
from infra.roles.ingest_head import HeadJob
from infra.roles.ingest_history import HistoryJob
from ingest.acknowledged import AcknowledgedSink
from ingest.checkpoint import Checkpoint
from ingest.preflight import Preflight
from ingest.providers import ProviderPool
from schemas.segments import Lane


class IngestProgress:
    """Gathers a snapshot from the parts of one ingester."""

    def __init__(
        self,
        chain: str,
        span: tuple[int, int | None],
        said: Preflight,
        pool: ProviderPool,
        checkpoint: Checkpoint,
        sinks: Mapping[Lane, AcknowledgedSink],
        history: HistoryJob | None,
        head: HeadJob | None,
    ) -> None:
        self.ending: Phase | None = None
        """Set when the ingester drains, is done, or has halted."""
        self._chain, self._said, self._pool = chain, said, pool
        self._first, self._last = span
        self._said_at = pool.clock()
        self._checkpoint, self._sinks = checkpoint, sinks
        self._history, self._head = history, head

    def snapshot(self) -> Progress:
        """The ingester at this moment."""
        blocks = logs = 0
        last, head = self._last, self._said.head.number
        heard, warning = self._pool.clock() - self._said_at, ""
        if self._history is not None:
            blocks, logs = self._history.progress.blocks_done, self._history.progress.logs_done
            last = self._history.end if last is None else last
        if self._head is not None and self._head.follower is not None:
            followed = self._head.follower.progress()
            blocks, logs = blocks + followed.blocks_published, logs + followed.logs_published
            head = followed.head.number if followed.head is not None else head
            heard = followed.heard_seconds_ago
            warning = "" if followed.silent is None else followed.silent.what_text
        last = self._first - 1 if last is None else last
        coverage, total = self._checkpoint.coverage(), max(0, last - self._first + 1)
        done = coverage.count(self._first, last)
        phase: Phase = "backfill" if done < total else "head"
        finalized = self._checkpoint.finalized
        return Progress(
            at_seconds=time.monotonic(),
            chain=self._chain,
            phase=self.ending or phase,
            from_block=self._first,
            to_block=last if total else None,
            done_blocks=done,
            total_blocks=total,
            head_block=head,
            head_age_seconds=heard,
            warning=warning,
            finalized_block=finalized.number if finalized is not None else None,
            stages=(
                StageProgress("ingest", blocks, logs),
                StageProgress("kafka", sum(sink.blocks for sink in self._sinks.values()), logs),
            ),
            providers=tuple(provider_progress(health) for health in self._pool.snapshot()),
            memory_bytes=memory_bytes((os.getpid(),)),
        )
