"""Data topics in, loads and their ledger in ClickHouse out: the role `sink`.

Each lane has a loop of its own (`sinks.consumer`), with its thread, consumer group and connections:
the head never waits behind a backfill. This module gives each loop what it needs, and ends the
process when one of them cannot go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
from confluent_kafka import Consumer
from prometheus_client import Counter

from infra.kafka.admin import check_topics
from infra.kafka.clients import consumer_config
from infra.kafka.contact import Contact
from infra.kafka.producer import EnvelopeProducer
from infra.roles.chain_database import await_storage, check_named
from infra.roles.lost_range import lost_range
from infra.roles.role_run import RoleRun, run_role
from infra.roles.topic_reader import ReadStopped, TopicReader
from infra.settings import Settings
from infra.storage import Storage
from schemas.errors import HeadraceError
from schemas.errors_kafka import MessageTooLarge
from schemas.errors_roles import OffsetsLost
from schemas.segments import DATA_TOPICS, DEAD_LETTERS, Envelope, Lane, data_topic
from schemas.topics import topic_name
from sinks.batcher import Batcher
from sinks.consumer import LaneConsumer
from sinks.consumer_terms import ConsumerSettings
from sinks.dead_letters import dead_letter
from sinks.known_segments import KnownSegments
from sinks.offsets import Place
from sinks.segment_loader import Arrival, LoadCounts, SegmentLoader
from sinks.segment_message import SegmentReader
from sinks.writer import Writer, WriterSettings

log = structlog.get_logger(__name__)

STAGE = "sink"
WRITER = WriterSettings(attempts_max=2)
"""The loop itself tries again, and polls meanwhile; so the writer need not insist."""


def run_sink(settings: Settings, *, accept_lost: bool = False) -> int:
    """Load what comes until told to stop.

    Parameters
    ----------
    settings
        The process's.
    accept_lost
        Go on at the oldest message that is kept where retention dropped unread ones.

    Raises
    ------
    HeadraceError
        Whatever ends the role.
    """
    return run_role("sink", settings, lambda run: SinkRole(run, settings, accept_lost).work())


def sink_group(prefix: str, lane: Lane) -> str:
    """The consumer group of a lane's sinks."""
    return f"{prefix}sink.{lane}"


class SinkRole:
    """The loops of one process."""

    def __init__(self, run: RoleRun, settings: Settings, accept_lost: bool) -> None:
        self._run, self._settings, self._accept_lost = run, settings, accept_lost
        self._kafka = settings.kafka
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._counters = Counters(run)

    def work(self) -> None:
        """Run the loops until the role is to stop, or one of them fails.

        Raises
        ------
        HeadraceError
            What ended a loop.
        """
        check_named(self._settings, "sink")
        lanes = self._settings.roles.lanes
        for lane in lanes:
            self._run.health.expect(f"kafka.{lane}", f"clickhouse.{lane}")
        topics = [data_topic(stream, lane) for stream in DATA_TOPICS for lane in lanes]
        partitions = check_topics(self._kafka, [*topics, DEAD_LETTERS])
        storage = await_storage(self._settings, "sink", self._run.stopping)
        if storage is None:
            return
        self._run.on_stop(self._ending.set)
        with EnvelopeProducer(self._kafka, partitions, client_id="headrace-sink") as producer:
            threads = [
                threading.Thread(
                    target=self._lane, args=(lane, storage, producer), name=f"sink-{lane}"
                )
                for lane in lanes
            ]
            for thread in threads:
                thread.start()
            # Set by the first failure, or by the wish to stop: every loop ends then.
            self._ending.wait()
            for thread in threads:
                thread.join()
        storage.close()
        if self._failure is not None:
            raise self._failure

    def _lane(self, lane: Lane, storage: Storage, producer: EnvelopeProducer) -> None:
        try:
            self._loop(lane, storage, producer).run(self._ending.is_set)
        except ReadStopped:
            log.info("lane_left_unread", lane=lane)
        except BaseException as error:  # noqa: BLE001 - a dead loop must end the process
            if self._failure is None:
                self._failure = error
        finally:
            self._run.health.end_beat(lane)
            self._ending.set()

    def _loop(self, lane: Lane, storage: Storage, producer: EnvelopeProducer) -> LaneConsumer:
        """A lane's loop with everything of its own."""
        kafka, facts = self._kafka, storage.facts
        group = sink_group(kafka.topic_prefix, lane)
        topics = {
            topic_name(kafka.topic_prefix, name): name
            for stream in DATA_TOPICS
            for name in [data_topic(stream, lane)]
        }
        known = KnownSegments(storage.connect(), storage.database, facts, storage.chain_id)
        contact = Contact(kafka)
        config = consumer_config(
            kafka, group, reset="error", client_id="headrace-sink", together=lane == "history"
        )
        watch = LaneWatch(self._run, lane, self._counters)
        writer = Writer(
            storage.connect(),
            storage.database,
            storage.tables,
            facts.partition_blocks,
            settings=WRITER,
        )
        batcher: Batcher[Arrival] = Batcher(
            facts.partition_blocks, self._settings.limits.pipeline.batch
        )

        def make_loader(on_done: Any, on_refused: Any) -> SegmentLoader:
            loader = SegmentLoader(
                writer,
                batcher,
                known,
                facts.partition_blocks,
                on_done=on_done,
                on_refused=on_refused,
                clock=time.monotonic,
            )
            watch.counts = loader.counts
            return loader

        return LaneConsumer(
            Consumer(config | {"error_cb": contact.on_error}),
            group,
            topics,
            SegmentReader(storage.chain_id, facts, storage.tables, storage.versions),
            known,
            make_loader,
            dead_letter=lambda *refused: self._letter(producer, *refused),
            fetch=self._fetch,
            lost=lambda *lost: self._lost(storage, topics, *lost),
            check_contact=contact.check,
            watch=watch,
            settings=ConsumerSettings(
                patience_seconds=self._settings.clickhouse.unreachable_seconds_max,
                accept_lost=self._accept_lost,
            ),
        )

    def _letter(
        self, producer: EnvelopeProducer, envelope: Envelope, place: Place, error: HeadraceError
    ) -> None:
        """Keep a refused message in dead_letters before its offset is committed."""
        now_ms = int(time.time() * 1000)
        at = (place.partition, place.offset, error, STAGE, now_ms)
        try:
            producer.deliver_blocking(dead_letter(envelope, *at), partition=place.partition)
        except MessageTooLarge:
            # With the reason around it, it is larger than it was: the reason alone must do.
            empty = dead_letter(replace(envelope, value=b""), *at)
            producer.deliver_blocking(empty, partition=place.partition)
        self._counters.dead_letters.labels(STAGE).inc()

    def _fetch(self, topic: str, partition: int, offset: int) -> Envelope:
        """One message again."""
        with TopicReader(self._kafka, topic, stopping=self._ending) as reader:
            for read in reader.read(partition, offset, offset + 1):
                return read.envelope
        return Envelope(topic, b"", b"")

    def _lost(
        self,
        storage: Storage,
        topics: Mapping[str, str],
        wire: str,
        partition: int,
        offset: int,
        reason: str,
    ) -> OffsetsLost:
        first, last = lost_range(storage, self._kafka, topics[wire], partition, self._ending)
        return OffsetsLost(
            topic=wire,
            partition=partition,
            offset=offset,
            reason=reason,
            from_block=first,
            to_block=last,
        )


class Counters:
    """The sink's metrics, of all its lanes."""

    def __init__(self, run: RoleRun) -> None:
        self.blocks = run.counter("headrace_blocks_total", "stage")
        self.logs = run.counter("headrace_logs_total", "stage")
        self.loads = run.counter("headrace_loads_total", "lane")
        self.decode_failures = run.counter("headrace_decode_failures_total")
        self.dead_letters = run.counter("headrace_dead_letters_total", "stage")
        self.lag = run.gauge("headrace_lag_messages", "topic", "partition")


class LaneWatch:
    """What one loop tells, as health and metrics."""

    def __init__(self, run: RoleRun, lane: Lane, counters: Counters) -> None:
        self.counts = LoadCounts()
        self._told = LoadCounts()
        self._health, self._lane, self._counters = run.health, lane, counters
        # An insert may take as long as ClickHouse is given for one.
        self._beat_seconds = 2 * run.settings.kafka.poll_interval_seconds_max

    def turn(self) -> None:
        """The loop went round."""
        self._health.beat(self._lane, self._beat_seconds)
        now, told, counters = self.counts, self._told, self._counters
        _inc(counters.blocks.labels(STAGE), now.blocks - told.blocks)
        _inc(counters.logs.labels(STAGE), now.logs - told.logs)
        _inc(counters.loads.labels(self._lane), now.loads - told.loads)
        _inc(counters.decode_failures, now.decode_failures - told.decode_failures)
        self._told = replace(now)

    def ready(self, condition: str, met: bool, note: str = "") -> None:
        """A condition of the lane is met or not."""
        self._health.ready(f"{condition}.{self._lane}", met=met, note=note)

    def lag(self, messages: Mapping[tuple[str, int], int]) -> None:
        """Messages that are not taken yet."""
        for (topic, partition), count in messages.items():
            self._counters.lag.labels(topic, partition).set(count)


def _inc(counter: Counter, amount: int) -> None:
    if amount:
        counter.inc(amount)
