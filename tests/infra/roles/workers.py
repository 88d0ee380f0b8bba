"""A broker's settings in, `headrace process` as processes of their own out, and their food."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.admin import connect
from infra.kafka.clients import consumer_config
from infra.kafka.producer import EnvelopeProducer
from infra.queues import ByteQueue
from infra.roles.process_offsets import COORDINATOR_COMES
from infra.settings_cluster import KafkaSettings
from infra.stages import Counts, decode_apply
from infra.turns import Turns
from ingest.backfill import receipts_source
from ingest.publish import segment_envelopes
from processors.abi import build_layouts
from schemas.segments import Envelope, Lane
from schemas.topics import topic_name, topics_by_name
from tests.infra.roles.kafka_reader import read_topic
from tests.ingest.devchain_node import (
    LOCAL,
    collect,
    fetcher_of,
    pool_of,
    segments,
    served,
    small_chain,
)
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
BLOCKS = 400

LEADER_COMES = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
"""A broker does not lead a partition at once that was just made."""

Place = tuple[str, int, int, str]
"""Topic, first and last block, last hash: what a segment is known by."""


@cache
def raw_logs() -> tuple[Envelope, ...]:
    """Every history segment of the logs of a synthetic chain."""

    async def fetch() -> list[Envelope]:
        chain = small_chain(BLOCKS + 5)
        async with served(chain) as server, pool_of(server) as pool:
            built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        return [segment_envelopes(part, LOCAL.segment_blocks)[1] for part in built]

    return tuple(asyncio.run(fetch()))


def embedded(raw: Iterable[Envelope], topic: str = "events.history") -> list[Envelope]:
    """What the embedded pipeline's decode stage makes of them for a topic."""
    source, target = ByteQueue("source", 2**30), ByteQueue("target", 2**30)
    apply = decode_apply(build_layouts(), LOCAL.segment_blocks, source, target, Counts(), Turns())
    for envelope in raw:
        asyncio.run(source.put(envelope))
        taken = source.get(0)
        assert taken is not None
        apply(taken)
    made = []
    while target.undone:
        one = target.get(0)
        assert one is not None
        made.append(one)
        target.done()
    return [one for one in made if one.topic == topic]


def place(envelope: Envelope) -> Place:
    """What a segment is known by."""
    of = envelope.headers
    return envelope.topic, int(of["from"]), int(of["to"]), of["last_hash"]


def send(kafka: KafkaSettings, envelopes: Iterable[Envelope]) -> None:
    """Into their topics, acknowledged."""
    with EnvelopeProducer(kafka) as producer:
        for envelope in envelopes:
            producer.put_blocking(envelope)
        assert producer.flush(PATIENCE_SECONDS) == 0


def command(kafka: KafkaSettings, lane: Lane, *flags: str) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-m", "infra.cli", "process", "--lanes", lane, *flags]


class Worker:
    """One worker as a process; its words are kept.

    Parameters
    ----------
    kafka
        The broker and the prefix.
    words
        Its command line.
    instance
        Its name in the group, if it has one.
    more
        Further variables of its environment.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        words: Sequence[str],
        instance: str | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        variables = {
            "HEADRACE_KAFKA__BOOTSTRAP": ",".join(kafka.bootstrap),
            "HEADRACE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "HEADRACE_KAFKA__SESSION_TIMEOUT_SECONDS": str(kafka.session_timeout_seconds),
            "HEADRACE_KAFKA__POLL_INTERVAL_SECONDS_MAX": str(kafka.poll_interval_seconds_max),
            "HEADRACE_KAFKA__UNREACHABLE_SECONDS_MAX": str(kafka.unreachable_seconds_max),
        }
        if instance is not None:
            variables["HEADRACE_KAFKA__INSTANCE"] = instance
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as the worker does
        self.process = subprocess.Popen(
            list(words),
            env={**os.environ, **variables, **more},
            cwd=ROOT,
            stdout=self._words,
            stderr=subprocess.STDOUT,
        )

    @property
    def said(self) -> str:
        """What it said so far."""
        self._words.seek(0)
        return self._words.read()

    @property
    def ready(self) -> bool:
        """Whether it has taken its place in the group."""
        return "worker_ready" in self.said

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Send a signal and wait; what it said."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> str:
        """What it said, once it has ended by itself."""
        self.process.wait(PATIENCE_SECONDS)
        return self.said

    def kill(self) -> None:
        """End it at once, if it has not."""
        self.process.kill()
        self.process.wait()
        self._words.close()

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.poll()


@contextmanager
def worker(
    kafka: KafkaSettings, lane: Lane, *flags: str, instance: str | None = "a", **more: str
) -> Iterator[Worker]:
    """A worker of a lane; killed at the end if it still runs."""
    started = Worker(kafka, command(kafka, lane, *flags), instance, more)
    try:
        yield started
    finally:
        started.kill()


def until(condition: Callable[[], object], what: str, *workers: Worker) -> None:
    """Ask a server again and again until it says so, while the workers live."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        for one in workers:
            assert one.code is None, f"it ended with {one.code}: {one.said}"
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@cache
def asker(bootstrap: str, group: str) -> Any:
    """A consumer that joins no group: it is asked for offsets, and kept for the next question."""
    kafka = KafkaSettings(bootstrap=(bootstrap,), session_timeout_seconds=6)
    return Consumer(consumer_config(kafka, group))


def ends(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """Where each partition ends."""
    name = topic_name(kafka.topic_prefix, topic)
    consumer = asker(kafka.bootstrap[0], "asker")
    partitions = topics_by_name()[topic].partitions(kafka.partitions)
    found: dict[int, int] = {}

    def answered() -> bool:
        for one in range(partitions):
            try:
                place = TopicPartition(name, one)
                found[one] = consumer.get_watermark_offsets(place, PATIENCE_SECONDS)[1]
            except KafkaException as raised:
                if raised.args[0].code() not in LEADER_COMES:
                    raise
        return len(found) == partitions

    until(answered, "the partitions' leaders")
    return found


def count(kafka: KafkaSettings, topic: str) -> int:
    """How many messages a topic has had."""
    return sum(ends(kafka, topic).values())


def committed(kafka: KafkaSettings, lane: Lane, topic: str) -> dict[int, int]:
    """What a lane's group has committed, by partition; -1001 where nothing."""
    name = topic_name(kafka.topic_prefix, topic)
    partitions = topics_by_name()[topic].partitions(kafka.partitions)
    asked = [TopicPartition(name, one) for one in range(partitions)]
    consumer = asker(kafka.bootstrap[0], f"{kafka.topic_prefix}process.{lane}")
    found: list[TopicPartition] = []

    def answered() -> bool:
        try:
            found[:] = consumer.committed(asked, PATIENCE_SECONDS)
        except KafkaException as raised:
            if raised.args[0].code() not in COORDINATOR_COMES:
                raise
        return bool(found)

    until(answered, "the group's coordinator")
    return {one.partition: one.offset for one in found}


def drained(kafka: KafkaSettings, lane: Lane, topic: str) -> bool:
    """Whether a lane's group has committed all of a topic."""
    done = committed(kafka, lane, topic)
    return all(done[at] == end or end == 0 for at, end in ends(kafka, topic).items())


def forget_before(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> None:
    """Let a partition's oldest messages be gone, as retention does."""
    at = TopicPartition(topic_name(kafka.topic_prefix, topic), partition, offset)
    admin = connect(kafka)
    admin.delete_records([at])[at].result()


def distinct(kafka: KafkaSettings, topic: str) -> dict[Place, bytes]:
    """The segments that lie in a topic; what lies there twice is equal."""
    found: dict[Place, bytes] = {}
    for envelope in read_topic(kafka, topic):
        assert found.setdefault(place(envelope), envelope.value) == envelope.value
    return found
