"""Envelopes in, acknowledged messages of Kafka's topics out; what waits is bounded by bytes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.kafka.clients import IN_FLIGHT_BYTES_MAX, producer_config
from infra.kafka.contact import REFUSALS, Contact, refused, unreachable
from infra.room import Room
from infra.settings_cluster import KafkaSettings
from schemas.errors import HeadraceError
from schemas.errors_kafka import (
    DeliveryFailed,
    MessageTooLarge,
    PartitionsTooFew,
    ProducerFailed,
    TopicsMissing,
)
from schemas.segments import Envelope
from schemas.topics import partition_of, topic_name, topics_by_name

POLL_SECONDS = 0.05
CLOSE_SECONDS = 10.0
"""How long `close` waits for what is under way."""

PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
"""librdkafka's codes for messages that were thrown away; its own codes begin with `_`."""

OnDelivered = Callable[[Envelope, int, int], None]
"""Called with an envelope, its partition and its offset once the brokers have it."""


class EnvelopeProducer:
    """An idempotent producer whose `put` waits for room and whose `deliver` waits for brokers.

    A message that is refused ends a `deliver` with its error. After a `put` nobody waits for that
    error: it is raised by the next call of whatever kind, and by every one after it, so that a
    stage cannot go on past a message that is not there.

    `put` and `deliver` are for asyncio; their callbacks run on the caller's loop. `put_blocking`
    and `deliver_blocking` are for threads, and wait a bounded while; their callbacks run on the
    producer's own thread and must be short.

    Parameters
    ----------
    kafka
        The settings.
    partitions
        Partitions of each topic, by its name without the prefix; a topic that is left out has
        what its declaration and the settings say.
    bytes_max
        Bytes that may be under way. One message above it passes when nothing else is.
    client_id
        How the brokers' logs name it.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        partitions: Mapping[str, int] | None = None,
        *,
        bytes_max: int = IN_FLIGHT_BYTES_MAX,
        client_id: str = "headrace",
    ) -> None:
        self._kafka = kafka
        declared = {
            name: topic.partitions(kafka.partitions) for name, topic in topics_by_name().items()
        }
        self._partitions = declared | dict(partitions or {})
        self._bytes_max = bytes_max
        self._room = Room()
        self._bytes = 0
        self._undelivered = 0
        self._failure: HeadraceError | None = None
        self._contact = Contact(kafka)
        config = producer_config(kafka, client_id) | {"error_cb": self._contact.on_error}
        self._producer: Any = Producer(config)
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._poller.start()

    def __enter__(self) -> EnvelopeProducer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def bytes_undelivered(self) -> int:
        """Bytes put that no broker has acknowledged."""
        return self._bytes

    @property
    def undelivered(self) -> int:
        """Messages put that no broker has acknowledged."""
        return self._undelivered

    @property
    def reachable(self) -> bool:
        """Whether the brokers are thought to answer: what `/readyz` asks."""
        return not self._contact.lost and self._failure is None

    async def put(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        """Send, waiting only for room.

        Parameters
        ----------
        envelope
            What is sent; its topic is named without the prefix.
        partition
            Where to; None takes what its key says.
        on_delivered
            Called on this loop once the brokers have it.

        Raises
        ------
        MessageTooLarge
            At once, for this envelope alone.
        HeadraceError
            What ended an earlier message, or the contact with the brokers.
        """
        loop = asyncio.get_running_loop()

        def called(taken: Envelope, where: int, offset: int) -> None:
            if on_delivered is not None and not loop.is_closed():
                loop.call_soon_threadsafe(on_delivered, taken, where, offset)

        self._check_size(envelope)
        await self._room.until_async(lambda: self._fits(envelope))
        self._produce(envelope, partition, called if on_delivered else None, None)

    async def deliver(self, envelope: Envelope, *, partition: int | None = None) -> tuple[int, int]:
        """Send and wait for the brokers: the partition and the offset. Raises as `put` does."""
        done: Future[tuple[int, int]] = Future()
        self._check_size(envelope)
        await self._room.until_async(lambda: self._fits(envelope))
        self._produce(envelope, partition, None, done)
        return await asyncio.wrap_future(done)

    def put_blocking(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        """`put` for threads; `on_delivered` is called on the producer's thread."""
        self._check_size(envelope)
        self._room_blocking(envelope)
        self._produce(envelope, partition, on_delivered, None)

    def deliver_blocking(
        self, envelope: Envelope, *, partition: int | None = None
    ) -> tuple[int, int]:
        """`deliver` for threads."""
        done: Future[tuple[int, int]] = Future()
        self._check_size(envelope)
        self._room_blocking(envelope)
        self._produce(envelope, partition, None, done)
        if not wait([done], self._patience_seconds).done:
            raise self._unacknowledged()
        return done.result()

    def flush(self, seconds: float) -> int:
        """Wait until everything is acknowledged or the time is up; returns what is still not.

        Raises
        ------
        HeadraceError
            What ended a message, or the contact with the brokers.
        """
        until = time.monotonic() + seconds
        with self._room:
            while self._undelivered and self._failure is None:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._room.wait(left)
            if self._failure is not None:
                raise self._failure
            return self._undelivered

    def close(self, seconds: float = CLOSE_SECONDS) -> int:
        """Flush for `seconds`, then end; returns how many messages nobody acknowledged."""
        try:
            left = self.flush(seconds)
        except HeadraceError:
            left = self._undelivered
        self._stopping.set()
        self._poller.join()
        if left:
            self._producer.purge()
        self._producer.flush(1.0)
        return left

    def _check_size(self, envelope: Envelope) -> None:
        if len(envelope.value) > self._kafka.message_bytes_max:
            raise self._too_large(envelope)

    def _fits(self, envelope: Envelope) -> bool:
        """Take room for an envelope, if there is any; called under the lock."""
        if self._failure is not None:
            raise self._failure
        size = len(envelope.value)
        if self._bytes and self._bytes + size > self._bytes_max:
            return False
        self._bytes += size
        self._undelivered += 1
        return True

    def _room_blocking(self, envelope: Envelope) -> None:
        if not self._room.until(lambda: self._fits(envelope), self._patience_seconds):
            raise self._unacknowledged()

    @property
    def _patience_seconds(self) -> float:
        """How long a thread waits: librdkafka gives up what is under way before that."""
        return self._kafka.unreachable_seconds_max + CLOSE_SECONDS

    def _unacknowledged(self) -> HeadraceError:
        reason = self._contact.reason or "what is under way was not acknowledged"
        return unreachable(self._kafka, self._patience_seconds, reason)

    def _produce(
        self,
        envelope: Envelope,
        partition: int | None,
        on_delivered: OnDelivered | None,
        done: Future[tuple[int, int]] | None,
    ) -> None:
        if partition is None:
            partition = partition_of(envelope.key, self._partitions[envelope.topic])

        def on_delivery(error: KafkaError | None, message: Any) -> None:
            failure = None if error is None else self._named(error, envelope)
            if failure is None and on_delivered is not None:
                on_delivered(envelope, message.partition(), message.offset())
            if done is not None and not done.cancelled():
                if failure is None:
                    done.set_result((message.partition(), message.offset()))
                else:
                    done.set_exception(failure)
            self._settled(envelope, failure if done is None else None)

        try:
            self._producer.produce(
                topic_name(self._kafka.topic_prefix, envelope.topic),
                value=envelope.value,
                key=envelope.key,
                partition=partition,
                headers=[(name, text.encode()) for name, text in envelope.headers.items()],
                on_delivery=on_delivery,
            )
        except KafkaException as error:
            failure = self._named(error.args[0], envelope)
            self._settled(envelope, failure if done is None else None)
            raise failure from error

    def _settled(self, envelope: Envelope, failure: HeadraceError | None) -> None:
        with self._room:
            self._bytes -= len(envelope.value)
            self._undelivered -= 1
            self._failure = self._failure or failure
            self._room.changed()

    def _poll(self) -> None:
        try:
            while not self._stopping.is_set():
                self._producer.poll(POLL_SECONDS)
                try:
                    self._contact.check(self._producer)
                except HeadraceError as error:
                    self._fail(error)
        except BaseException as error:
            self._fail(ProducerFailed(reason=f"a callback raised {error!r}"))
            raise

    def _fail(self, error: HeadraceError) -> None:
        """End for good: nobody waits any longer for what is under way."""
        with self._room:
            first = self._failure is None
            self._failure = self._failure or error
            self._room.changed()
        if first:
            self._producer.purge()

    def _too_large(self, envelope: Envelope) -> MessageTooLarge:
        return MessageTooLarge(
            topic=topic_name(self._kafka.topic_prefix, envelope.topic),
            key=envelope.key.decode(errors="replace"),
            size_bytes=len(envelope.value),
            limit=self._kafka.message_bytes_max,
        )

    def _named(self, error: KafkaError, envelope: Envelope) -> HeadraceError:
        """The coded error for what ended a message."""
        if error.code() in PURGED and self._failure is not None:
            return self._failure
        code, topic = error.code(), topic_name(self._kafka.topic_prefix, envelope.topic)
        if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
            return self._too_large(envelope)
        if code in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
            return TopicsMissing(topics=topic)
        if code == KafkaError._UNKNOWN_PARTITION:
            declared = self._partitions[envelope.topic]
            return PartitionsTooFew(topic=topic, found="fewer", declared=declared)
        if code == KafkaError._MSG_TIMED_OUT:
            return unreachable(self._kafka, self._kafka.unreachable_seconds_max, error.str())
        if code in REFUSALS:
            return refused(self._kafka, error.str())
        return DeliveryFailed(
            topic=topic, key=envelope.key.decode(errors="replace"), reason=error.str()
        )
