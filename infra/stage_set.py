"""A prepared database in, every stage of the embedded pipeline as running threads out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from infra.metrics_export import MetricsExport
from infra.patience import patiently
from infra.queues import ByteQueue
from infra.settings import Settings
from infra.sink_stage import HeadTimes, SinkStage
from infra.stages import Counts, Failures, ReorgStage, Router, Stage, decode_apply
from infra.storage import Storage
from infra.turns import Turns
from processors.fork import ForkState
from processors.reorg import snapshot
from schemas.segments import Envelope, SegmentName
from sinks.canon_row import Change, Missing, Reorg
from sinks.compaction import Compactor, Folded
from sinks.rewind import Rewinder
from sinks.sealer import Sealed, Sealer
from sinks.sweeper import Sweeper
from sinks.upkeep import Upkeep

log = structlog.get_logger(__name__)

WAIT_SECONDS = 0.02
JOIN_SECONDS = 0.1
"""How long each thread is waited for, at least, when the time to drain is up."""
REORGS_KEPT = 16


@dataclass(frozen=True, slots=True)
class ReorgSeen:
    """A reorg as the publisher applied it."""

    reorg: Reorg
    """What it replaced."""
    at: float
    """Unix time."""


class StageSet:
    """The stages of one run, joined by queues.

    Parameters
    ----------
    settings
        Bounds of queues and batches.
    storage
        The prepared database.
    floor
        First block to show.
    metrics
        Counts the head's latency.
    turns
        Shared with ingest: who may compute.

    Raises
    ------
    HeadraceError
        A stage cannot take up where the last run ended.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        floor: int,
        metrics: MetricsExport,
        turns: Turns,
    ) -> None:
        bytes_max = settings.limits.pipeline.queue_bytes_max
        self._storage = storage
        self._sinks = ByteQueue("sinks", bytes_max)
        self._decode = ByteQueue("decode", bytes_max)
        self._heads = ByteQueue("heads", bytes_max)
        self.router = Router(self._sinks, self._decode, self._heads)
        self.failures = Failures()
        self._metrics = metrics
        self._head_times = HeadTimes()
        self.reorgs: list[ReorgSeen] = []
        self.reorg_count = 0
        rewinder = Rewinder(storage.connect(), storage.database, storage.facts, storage.tables)
        patiently(rewinder.finish)
        self.publisher = storage.publisher(floor, self._on_missing, self._on_row)
        generation = patiently(self.publisher.claim)
        row = self.publisher.visible()
        durable = patiently(lambda: storage.durable(row.sealed if row else ()))
        self.sink = SinkStage(
            self._sinks,
            storage.writer(generation, turns),
            storage.batcher(),
            durable,
            self.publisher.notify,
            time.monotonic,
            storage.facts.partition_blocks,
            self._head_times,
        )
        self.decode_counts = Counts()
        apply = decode_apply(
            storage.layouts,
            storage.facts.segment_blocks,
            self._decode,
            self._sinks,
            self.decode_counts,
            turns,
        )
        self._reorg: ReorgStage | None = None
        self._stages = [
            Stage("decode", self._decode, apply, self.failures, turns=turns),
            Stage("sink", self._sinks, self.sink.apply, self.failures, self.sink.idle, turns=turns),
            Stage("reorg", self._heads, self._apply_head, self.failures),
        ]
        self._missing: list[Missing] = []
        self._lock = threading.Lock()
        named = (storage.connect(), storage.database, storage.tables, self.publisher)
        self._upkeep = Upkeep(
            Compactor(*named),
            Sealer(*named),
            Sweeper(*named),
            on_done=self._on_chore,
            on_trouble=lambda error: log.info("chore_put_off", code=error.code),
        )

    @property
    def queue_bytes(self) -> dict[str, int]:
        """Bytes that wait before each stage."""
        return {"decode": self._decode.bytes_waiting, "load": self._sinks.bytes_waiting}

    def start(self) -> None:
        """Start every thread."""
        self.publisher.start()
        for stage in self._stages:
            stage.start()
        self._upkeep.start()

    def begin_head(self, state: ForkState) -> None:
        """Take up the head lane at a fork state; before its first envelope."""
        self._reorg = ReorgStage(state, self._heads, self.publisher.apply_fork)
        self.publisher.apply_fork(snapshot(state, int(time.time() * 1000)))

    def visible_to(self, number: int) -> bool:
        """Whether block `number` is visible."""
        row = self.publisher.visible()
        return row is not None and row.head.number >= number

    def _final_to(self, number: int) -> bool:
        row = self.publisher.visible()
        final = row.finalized if row is not None else None
        return number < 0 or (final is not None and final.number >= number)

    async def settle(self, number: int, poll_seconds: float) -> None:
        """Wait until all that was put is durable and block `number` is visible as final.

        Raises
        ------
        HeadraceError
            A stage failed.
        """
        self.sink.hurry.set()
        while self._undone() or not self._final_to(number):
            if self.failures.first is not None:
                raise self.failures.first
            self.check_publisher()
            await asyncio.sleep(poll_seconds)
        self.sink.hurry.clear()

    def take_missing(self) -> list[Missing]:
        """Segments that the publisher misses, each once."""
        with self._lock:
            missing, self._missing = self._missing, []
        return missing

    def check_publisher(self) -> None:
        """Raise what made the publisher or a chore fail, if anything did."""
        failure = self.publisher.failure or self._upkeep.failure
        if failure is not None:
            raise failure

    def drain(self, seconds: float) -> bool:
        """Finish what was put, then stop every thread; False when the time is up."""
        until = time.monotonic() + seconds
        self.sink.hurry.set()
        while self._undone() and self.failures.first is None:
            if time.monotonic() > until:
                self.abandon()
                return False
            time.sleep(WAIT_SECONDS)
        self.abandon()
        joins: list[Callable[[float], bool]]
        joins = [*(stage.join for stage in self._stages), self.publisher.stop, self._upkeep.stop]
        ended = [join(max(JOIN_SECONDS, until - time.monotonic())) for join in joins]
        return all(ended)

    def abandon(self) -> None:
        """Ask every thread to stop; what is in the queues is fetched again by the next run."""
        for queue in (self._heads, self._decode, self._sinks):
            queue.close()

    def halt(self) -> None:
        """Stop after a failure: what was not published is fetched again by the next run."""
        self.abandon()
        self.publisher.stop()
        self._upkeep.stop()

    def _undone(self) -> int:
        return self._heads.undone + self._decode.undone + self._sinks.undone

    def _apply_head(self, envelope: Envelope) -> None:
        assert self._reorg is not None, "the head lane was not begun"
        self._reorg.apply(envelope)

    def _on_missing(self, missing: Missing) -> None:
        names = [name for name in self.sink.durable_names() if _is_of(name, missing)]
        self.sink.forget(names)
        with self._lock:
            self._missing.append(missing)

    def _on_row(self, change: Change) -> None:
        observed = self._head_times.observed_at_ms(change.row.head.hash)
        if observed is not None:
            self._metrics.observe_head_latency(max(0.0, time.time() - observed / 1000))
        if change.reorg is not None:
            self.reorg_count += 1
            self.reorgs = [*self.reorgs, ReorgSeen(change.reorg, time.time())][-REORGS_KEPT:]
            log.info(
                "reorg_applied",
                from_block=change.reorg.removed[-1].number,
                depth_blocks=len(change.reorg.removed),
            )

    def _on_chore(self, done: Folded | Sealed) -> None:
        if isinstance(done, Sealed):
            self.sink.forget_partition(done.partition)
            log.info("sealed", partition=done.partition, rows=done.rows)
        else:
            log.debug("folded", load_id=done.load_id, swapped=done.swapped)


def _is_of(name: SegmentName, missing: Missing) -> bool:
    return (name.stream, name.from_block, name.to_block) == (
        missing.stream,
        missing.from_block,
        missing.to_block,
    )
