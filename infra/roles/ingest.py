"""Settings in, blocks of one chain in Kafka out: the role `headrace ingest`.

    endpoints ─► history job ─► raw.blocks.history, raw.logs.history ─┐
              ├► head job ────► raw.heads, raw.blocks.head, … ────────┼► acknowledged ─► checkpoints
              └► request job ─► whatever `requests` names, once more ─┘

The jobs run side by side in one event loop, each lane with a producer of its own: the head never
waits for bytes of the history. Nothing is kept here but what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

import structlog
import uvloop

from infra.chain_of_endpoints import endpoint_specs, meet_chain
from infra.display import Display
from infra.kafka.admin import check_topics
from infra.kafka.producer import EnvelopeProducer
from infra.metrics_export import ProgressCollector
from infra.roles.ingest_head import HeadJob, check_final
from infra.roles.ingest_history import HistoryJob
from infra.roles.ingest_progress import IngestProgress
from infra.roles.ingest_requests import RequestJob
from infra.roles.ingest_topics import newest_checkpoints, told_as_final
from infra.roles.role_run import RoleRun, run_role
from infra.roles.topic_reader import ReadStopped, TopicReader
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from infra.source import ChainSource
from ingest.acknowledged import AcknowledgedSink
from ingest.checkpoint import Checkpoint, checkpoint_envelope
from ingest.preflight import Preflight
from ingest.providers import ProviderPool
from schemas.errors_infra import DrainTimedOut
from schemas.segments import (
    CHECKPOINTS,
    FORKS,
    RAW_HEADS,
    REQUESTS,
    Lane,
    Stream,
    content_version,
    data_topic,
)

log = structlog.get_logger(__name__)

START_BLOCKS = 1_000
"""Without a first block a public chain is begun so far below finality."""
CHECKPOINT_SECONDS = 1.0
"""How often the checkpoint is written, at most."""
WATCH_SECONDS = 0.05
"""How often is looked whether all is acknowledged, and whether a message failed."""


def run_ingest(settings: Settings, display: Display) -> int:
    """Ingest a chain into Kafka until its target is acknowledged, a signal, or a failure.

    Returns
    -------
    int
        The exit code: 0 when the target is acknowledged or after SIGTERM, 130 after Ctrl-C.

    Raises
    ------
    HeadraceError
        Whatever stopped it. Nothing is lost: whoever comes next goes on from the checkpoint.
    """

    def work(role: RoleRun) -> None:
        uvloop.run(_work(role, settings, display))

    return run_role("ingest", settings, work)


def instance_name(kafka: KafkaSettings) -> str:
    """A name for this ingester, other than every other's."""
    return kafka.instance or f"{socket.gethostname()}-{os.getpid()}"


async def _work(role: RoleRun, settings: Settings, display: Display) -> None:
    stop = role.stop_event()
    role.health.expect("endpoints", "kafka")
    async with ProviderPool(endpoint_specs(settings), settings.limits.ingest) as pool:
        settings, facts, said = await meet_chain(
            settings, pool, lambda text: display.note(text, "yellow")
        )
        role.health.ready("endpoints")
        source = ChainSource(settings, facts, said.chain_id)
        with contextlib.ExitStack() as stack:
            ingester = await asyncio.to_thread(Ingester, role, settings, source, pool, stack)
            await ingester.run(said, stop, display)


class Ingester:
    """The jobs of one ingester and what they share.

    Parameters
    ----------
    role
        The process.
    settings
        With the chain filled in.
    source, pool
        Where blocks come from.
    stack
        Closes what is opened here.

    Raises
    ------
    HeadraceError
        One of HR-60xx: the brokers do not answer.
    """

    def __init__(
        self,
        role: RoleRun,
        settings: Settings,
        source: ChainSource,
        pool: ProviderPool,
        stack: contextlib.ExitStack,
    ) -> None:
        self._role, self._settings, self._source, self._pool = role, settings, source, pool
        kafka, lanes = settings.kafka, settings.roles.lanes
        partitions = check_topics(kafka, _topics(lanes))
        version = content_version(source=sorted(source.versions()))
        self._tail = TopicReader(kafka, CHECKPOINTS, stopping=role.stopping)
        stack.callback(self._tail.close)
        self.checkpoint = Checkpoint(source.chain_id, version, instance_name(kafka))
        for found in newest_checkpoints(self._tail.read_to_end(), source.chain_id, version):
            self.checkpoint.merge(found)
            self.checkpoint.requests_offset = found.requests_offset
        with TopicReader(kafka, FORKS, stopping=role.stopping) as forks:
            told = told_as_final(forks, source.chain_id)
        self._told = told or self.checkpoint.finalized
        self._requests = TopicReader(kafka, REQUESTS, stopping=role.stopping)
        self._requests.seek(self.checkpoint.requests_offset)
        stack.callback(self._requests.close)
        self._producers: dict[Lane, EnvelopeProducer] = {
            lane: stack.enter_context(
                EnvelopeProducer(kafka, partitions, client_id=f"headrace-ingest-{lane}")
            )
            for lane in lanes
        }
        self._sinks: dict[Lane, AcknowledgedSink] = {
            lane: AcknowledgedSink(producer, self.checkpoint)
            for lane, producer in self._producers.items()
        }
        role.health.ready("kafka")

    async def run(self, said: Preflight, stop: asyncio.Event, display: Display) -> None:
        """Ingest until the target is acknowledged and no request waits, or `stop`, or a failure.

        Raises
        ------
        HeadraceError
            What made a job fail; DrainTimedOut where the brokers do not take what is under way.
        """
        if self._told is not None:
            await check_final(self._pool, self._told)
        first, last = self._target(said)
        history, head = self._jobs(first, last)
        requests = RequestJob(
            self._source, self._pool, self._sinks, self.checkpoint, self._requests.poll
        )
        progress = IngestProgress(
            self._source.facts.name,
            (first, last),
            said,
            self._pool,
            self.checkpoint,
            self._sinks,
            history,
            head,
        )
        jobs: list[Coroutine[Any, Any, None]] = [
            *([history.run(said)] if history is not None else []),
            *([head.run(said)] if head is not None and not self._settled(said, last) else []),
            requests.run(),
            self._write_checkpoints(),
            self._read_checkpoints(),
        ]
        until = [stop.wait(), self._until(first, last, requests)]
        with self._shown(display, progress):
            try:
                await _first_of([*jobs, *until])
                progress.ending = "draining"
                await self._drain()
            except BaseException:
                progress.ending = "halted"
                raise
            progress.ending = "done"
        display.note(f"acknowledged: {_spans_text(self.checkpoint)}")

    @contextlib.contextmanager
    def _shown(self, display: Display, progress: IngestProgress) -> Iterator[None]:
        collector = ProgressCollector(progress.snapshot)
        self._role.registry.register(collector)
        shown = asyncio.ensure_future(display.watch(progress.snapshot))
        try:
            yield
        finally:
            shown.cancel()
            self._role.registry.unregister(collector)

    def _target(self, said: Preflight) -> tuple[int, int | None]:
        """The first and last block that are wanted; None follows the head."""
        settings, facts = self._settings, self._source.facts
        last = None if settings.to_block == "latest" else settings.to_block
        if settings.from_block is not None:
            return settings.from_block, last
        lowest = self.checkpoint.coverage().lowest
        if lowest is not None:
            return lowest, last
        if facts.chain_id is None:
            return 0, last
        final = said.finalized.number if said.finalized is not None else 0
        upper = final if last is None else min(final, last)
        return facts.segment_start(max(0, upper - START_BLOCKS)), last

    def _jobs(self, first: int, last: int | None) -> tuple[HistoryJob | None, HeadJob | None]:
        history = head = None
        if "history" in self._sinks:
            history = HistoryJob(
                self._source,
                self._pool,
                self._sinks["history"],
                self.checkpoint,
                first,
                last,
                blocks_per_second_max=self._settings.roles.history_blocks_per_second_max,
            )
        if "head" in self._sinks:
            head = HeadJob(self._source, self._pool, self._sinks["head"], self._told)
        return history, head

    def _settled(self, said: Preflight, last: int | None) -> bool:
        """Whether the target lies in whole final segments, so that no head is needed."""
        final = -1 if said.finalized is None else said.finalized.number
        return last is not None and last < self._source.facts.segment_start(final + 1)

    async def _until(self, first: int, last: int | None, requests: RequestJob) -> None:
        """Wait until all that is wanted is acknowledged; raise what made a message fail.

        Whoever was asked for a segment while nobody ingested is to have it, too.
        """
        await self._while(lambda: last is None or not self.checkpoint.reached(first, last))
        try:
            low, end = await asyncio.to_thread(self._requests.bounds)
        except ReadStopped:
            return
        await self._while(lambda: low < end and not requests.served_to(end))

    async def _while(self, waiting: Callable[[], bool]) -> None:
        while waiting():
            for producer in self._producers.values():
                producer.flush(0.0)
            self._role.health.beat("ingest")
            await asyncio.sleep(WATCH_SECONDS)

    async def _write_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await self._write_checkpoint()

    async def _write_checkpoint(self) -> None:
        written = self.checkpoint.take(self._pool.now_ms())
        if written is None:
            return
        producer = self._producers.get("head") or self._producers["history"]
        try:
            await producer.deliver(checkpoint_envelope(written))
        except BaseException:
            self.checkpoint.put_back()
            raise

    async def _read_checkpoints(self) -> None:
        """Take in what other ingesters of this chain have covered."""
        chain_id, version = self.checkpoint.chain_id, self.checkpoint.content_version
        while True:
            messages = await asyncio.to_thread(self._tail.poll, CHECKPOINT_SECONDS)
            for found in newest_checkpoints(messages, chain_id, version):
                if found.instance != self.checkpoint.instance:
                    self.checkpoint.merge(found)

    async def _drain(self) -> None:
        """Wait until what was put is acknowledged, and write the last checkpoint."""
        seconds = self._settings.roles.drain_seconds_max
        until = time.monotonic() + seconds
        while any(sink.in_flight for sink in self._sinks.values()):
            if time.monotonic() > until:
                raise DrainTimedOut(seconds=seconds)
            for producer in self._producers.values():
                producer.flush(0.0)
            await asyncio.sleep(WATCH_SECONDS)
        await self._write_checkpoint()


def _topics(lanes: Iterable[Lane]) -> list[str]:
    """Names of the topics that an ingester of these lanes needs."""
    streams: tuple[Stream, ...] = ("blocks", "logs")
    data = [data_topic(stream, lane) for lane in lanes for stream in streams]
    return [*data, RAW_HEADS, FORKS, REQUESTS, CHECKPOINTS]


async def _first_of(jobs: list[Coroutine[Any, Any, Any]]) -> None:
    """Run jobs until one of them ends; raise its failure. The others are cancelled."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _spans_text(checkpoint: Checkpoint) -> str:
    spans = checkpoint.coverage().spans
    if not spans:
        return "no final block yet"
    shown = ", ".join(f"{span.from_block:,} to {span.to_block:,}" for span in spans[:3])
    return f"final blocks {shown}{', …' if len(spans) > 3 else ''}"
