"""The parts of a run in, snapshots for the display out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime

from infra.health import memory_bytes, provider_progress
from infra.ingest_run import IngestRun, Target
from infra.progress import Phase, Progress, ReorgNotice, StageProgress
from infra.stage_set import StageSet
from ingest.preflight import Preflight
from ingest.providers import ProviderPool


class RunProgress:
    """Gathers a snapshot from the parts; called by the display's task."""

    def __init__(
        self,
        chain: str,
        target: Target,
        stages: StageSet,
        ingest: IngestRun,
        pool: ProviderPool,
        said: Preflight,
        clickhouse_pid: Callable[[], int],
    ) -> None:
        self.phase: Phase = "starting"
        self.synthetic = False
        self.note = ""
        self._chain, self._target, self._clickhouse_pid = chain, target, clickhouse_pid
        self._stages, self._ingest, self._pool, self._said = stages, ingest, pool, said
        self._said_at = pool.clock()

    def snapshot(self) -> Progress:
        """The run at this moment."""
        row = self._stages.publisher.visible()
        visible = row.head.number if row is not None else None
        head, heard, warning = self._said.head.number, self._pool.clock() - self._said_at, ""
        blocks, logs = self._ingest.history.blocks_done, self._ingest.history.logs_done
        if self._ingest.follower is not None:
            follower = self._ingest.follower.progress()
            blocks += follower.blocks_published
            logs += follower.logs_published
            heard = follower.heard_seconds_ago
            if follower.head is not None:
                head = follower.head.number
            if follower.silent is not None:
                warning = follower.silent.what_text
        first = self._target.from_block
        last = self._ingest.history_to if self._target.to_block is None else self._target.to_block
        done = 0 if visible is None else max(0, min(visible, last) - first + 1)
        waiting = self._stages.queue_bytes
        decoded, loaded = self._stages.decode_counts, self._stages.sink.counts
        return Progress(
            at_seconds=time.monotonic(),
            chain=self._chain,
            phase=self.phase,
            from_block=first,
            to_block=last if last >= 0 else None,
            done_blocks=done,
            total_blocks=max(0, last - first + 1),
            visible_block=visible,
            head_block=head,
            head_age_seconds=heard,
            warning=warning,
            finalized_block=row.finalized.number if row and row.finalized else None,
            stages=(
                StageProgress("ingest", blocks, logs),
                StageProgress("decode", decoded.blocks, decoded.logs, waiting["decode"]),
                StageProgress("load", loaded.blocks, loaded.logs, waiting["load"]),
            ),
            providers=tuple(provider_progress(health) for health in self._pool.snapshot()),
            reorgs=tuple(
                ReorgNotice(
                    seen.reorg.removed[-1].number,
                    len(seen.reorg.removed),
                    datetime.fromtimestamp(seen.at).astimezone().strftime("%H:%M:%S"),
                )
                for seen in self._stages.reorgs
            ),
            reorg_count=self._stages.reorg_count,
            loads=self._stages.sink.loads,
            decode_failures=self._stages.sink.decode_failures,
            memory_bytes=memory_bytes((os.getpid(), self._clickhouse_pid())),
            synthetic=self.synthetic,
            note=self.note if visible is not None else "",
        )
