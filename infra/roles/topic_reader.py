"""A topic's partition and offsets in, its messages as envelopes out, outside of any group."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.clients import reader_config
from infra.kafka.contact import Contact, unreachable
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import TopicsMissing
from schemas.segments import Envelope
from schemas.topics import topic_name
from sinks.group_member import envelope_of

BROKERS_SECONDS = 5.0
"""How long one question to the brokers may take."""
POLL_SECONDS = 0.25
STOP_SECONDS = 0.75
"""How long brokers may be silent to a role that is to drain, before nobody waits for them."""
CLOSE_SECONDS = 0.5
"""How long `close` waits for who asks the brokers; then that one closes in its place."""

T = TypeVar("T")


class ReadStopped(Exception):
    """Nobody waits for the answer any longer: the role drains, or the reader was closed."""


@dataclass(frozen=True, slots=True)
class Read:
    """A message as it lies in a topic."""

    partition: int
    """Its partition."""
    offset: int
    """Its offset."""
    at_ms: int
    """When it was sent, in Unix milliseconds of its sender's clock."""
    envelope: Envelope
    """The message; its topic is named without the prefix."""


class TopicReader:
    """Reads a topic, outside of any group.

    `poll` and `close` are for any thread, `bounds`, too; the rest for one. librdkafka crashes where
    a client is closed under a question, so one at a time asks or closes.

    Parameters
    ----------
    kafka
        The settings.
    topic
        Its name without the prefix.
    clock
        Seconds of a steady clock.
    stopping
        Set when the role is to drain: where the brokers are silent then, `ReadStopped` is raised
        within a second, and `poll` gives nothing. What they answer at once is still read.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        stopping: threading.Event | None = None,
    ) -> None:
        self.topic, self._clock = topic, clock
        self._stopping = stopping or threading.Event()
        self._kafka, self._wire = kafka, topic_name(kafka.topic_prefix, topic)
        self._contact = Contact(kafka)
        config = reader_config(kafka, f"{self._wire}.reader")
        config |= {"enable.partition.eof": True, "error_cb": self._contact.on_error}
        self._consumer: Any = Consumer(config)
        self._lock = threading.Lock()
        self._closed = self._left = False

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the brokers, once whoever asks them has had its answer."""
        self._closed = True
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._leave()
            finally:
                self._lock.release()

    def partitions(self) -> list[int]:
        """The topic's partitions.

        Raises
        ------
        TopicsMissing
        ReadStopped
        HeadraceError
            Another of HR-60xx.
        """
        found = self._ask(lambda: self._consumer.list_topics(self._wire, timeout=BROKERS_SECONDS))
        topic = found.topics[self._wire]
        if topic.error is not None:
            raise TopicsMissing(topics=self._wire)
        return sorted(topic.partitions)

    def bounds(self, partition: int = 0) -> tuple[int, int]:
        """The first offset that is kept, and the next one to be written.

        Raises
        ------
        ReadStopped
        HeadraceError
            One of HR-60xx.
        """
        part = TopicPartition(self._wire, partition)
        low, high = self._ask(
            lambda: self._consumer.get_watermark_offsets(part, timeout=BROKERS_SECONDS)
        )
        return low, high

    def seek(self, offset: int, partition: int = 0) -> None:
        """Go on with `poll` from an offset of one partition, or from the first kept after it."""
        with self._client():
            self._consumer.assign([TopicPartition(self._wire, partition, offset)])

    def poll(self, seconds: float) -> list[Read]:
        """The messages that have come, after `seconds` at most; none once it is closed.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        try:
            return self._poll(seconds)[0]
        except ReadStopped:
            return []

    def read(self, partition: int, from_offset: int, to_offset: int) -> Iterator[Read]:
        """The messages that are kept of ``[from_offset, to_offset)``, oldest first.

        None is left out: where the brokers are slow it waits, and where they stay silent it raises.

        Raises
        ------
        ReadStopped
            Before it has come to the end.
        HeadraceError
            One of HR-60xx.
        """
        low, high = self.bounds(partition)
        at, end = max(low, from_offset), min(high, to_offset)
        self.seek(at, partition)
        quiet_since = self._clock()
        while at < end:
            got, ended = self._poll(POLL_SECONDS)
            quiet = self._clock() - quiet_since
            if got:
                quiet_since = self._clock()
            elif quiet > STOP_SECONDS and self._stopping.is_set():
                raise ReadStopped(self._wire)
            elif quiet > self._kafka.unreachable_seconds_max:
                raise unreachable(self._kafka, quiet, f"nothing came of {self._wire}/{partition}")
            for one in got:
                at = one.offset + 1
                if one.offset < end:
                    yield one
            if ended:
                # What is left has been compacted, or dropped by retention meanwhile.
                return

    def read_to_end(self) -> list[Read]:
        """All that is kept of a topic of one partition; `poll` goes on with what comes then.

        Raises
        ------
        ReadStopped
        HeadraceError
            One of HR-60xx.
        """
        low, high = self.bounds()
        found = list(self.read(0, low, high))
        self.seek(high)
        return found

    def _poll(self, seconds: float) -> tuple[list[Read], bool]:
        """The messages that have come, and whether a partition's end came with them."""
        found, ended = [], False
        if self._contact.lost:
            self._ask_of_contact()
        with self._client():
            self._contact.raise_failure()
            first = self._consumer.poll(seconds)
            if first is None:
                return [], False
            came = (first, *self._consumer.consume(256, timeout=0))
        for got in came:
            error = got.error()
            if error is None:
                envelope = envelope_of(got, self.topic)
                at_ms = got.timestamp()[1]
                found.append(Read(got.partition(), got.offset(), at_ms, envelope))
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicsMissing(topics=self._wire)
            else:
                self._contact.on_error(error)
        return found, ended

    def _ask(self, question: Callable[[], T]) -> T:
        """What the brokers answer, asked until they do."""

        def once() -> T:
            with self._client():
                return question()

        while True:
            try:
                return self._while_wanted(once)
            except KafkaException as error:
                self._lost(error)

    def _while_wanted(self, call: Callable[[], T]) -> T:
        """What a call gives, made in a thread of its own: librdkafka's cannot be cut short."""
        made: Future[T] = Future()

        def run() -> None:
            try:
                made.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                made.set_exception(error)

        threading.Thread(target=run, name="topic-reader", daemon=True).start()
        quiet = 0.0
        while not wait([made], POLL_SECONDS).done:
            quiet += POLL_SECONDS
            if quiet >= STOP_SECONDS and self._stopping.is_set():
                raise ReadStopped(self._wire)
        return made.result()

    def _lost(self, error: KafkaException) -> None:
        reason: KafkaError = error.args[0]
        if reason.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise TopicsMissing(topics=self._wire)
        self._contact.lose(self._told_of(reason))
        self._ask_of_contact()

    def _told_of(self, reason: KafkaError) -> str:
        """What the client says of it itself, such as a refused connection; it says so in polls."""
        with self._client():
            # Where something is assigned, a poll would take a message.
            if not self._consumer.assignment():
                self._consumer.poll(0)
        return self._contact.reason or reason.str()

    def _ask_of_contact(self) -> None:
        def check() -> None:
            with self._client():
                self._contact.check(self._consumer)

        self._while_wanted(check)

    @contextlib.contextmanager
    def _client(self) -> Iterator[None]:
        """The client for one thread alone; none once it is closed."""
        with self._lock:
            if self._closed:
                raise ReadStopped(self._wire)
            try:
                yield
            finally:
                # Whoever wanted to close it has not waited.
                if self._closed:
                    self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._consumer.close()
