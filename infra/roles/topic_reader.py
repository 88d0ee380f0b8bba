"""A topic's partition and offsets in, its messages as envelopes out, outside of any group."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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

    `poll` and `close` are for any thread, `bounds`, too; the rest for one.

    Parameters
    ----------
    kafka
        The settings.
    topic
        Its name without the prefix.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.topic, self._clock = topic, clock
        self._kafka, self._wire = kafka, topic_name(kafka.topic_prefix, topic)
        self._contact = Contact(kafka)
        config = reader_config(kafka, f"{self._wire}.reader")
        config |= {"enable.partition.eof": True, "error_cb": self._contact.on_error}
        self._consumer: Any = Consumer(config)
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the brokers, once whoever polls has had its answer."""
        with self._lock:
            self._closed = True
            self._consumer.close()

    def partitions(self) -> list[int]:
        """The topic's partitions.

        Raises
        ------
        TopicsMissing
        HeadraceError
            Another of HR-60xx.
        """
        while True:
            try:
                found = self._consumer.list_topics(self._wire, timeout=BROKERS_SECONDS)
            except KafkaException as error:
                self._lost(error)
                continue
            topic = found.topics[self._wire]
            if topic.error is not None:
                raise TopicsMissing(topics=self._wire)
            return sorted(topic.partitions)

    def bounds(self, partition: int = 0) -> tuple[int, int]:
        """The first offset that is kept, and the next one to be written.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        part = TopicPartition(self._wire, partition)
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(part, timeout=BROKERS_SECONDS)
            except KafkaException as error:
                self._lost(error)
                continue
            return low, high

    def seek(self, offset: int, partition: int = 0) -> None:
        """Go on with `poll` from an offset of one partition, or from the first kept after it."""
        self._consumer.assign([TopicPartition(self._wire, partition, offset)])

    def poll(self, seconds: float) -> list[Read]:
        """The messages that have come, after `seconds` at most; none once it is closed.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        return self._poll(seconds)[0]

    def read(self, partition: int, from_offset: int, to_offset: int) -> Iterator[Read]:
        """The messages that are kept of ``[from_offset, to_offset)``, oldest first.

        None is left out: where the brokers are slow it waits, and where they stay silent it raises.

        Raises
        ------
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
        with self._lock:
            if self._closed:
                return [], False
            self._contact.check(self._consumer)
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

    def _lost(self, error: KafkaException) -> None:
        reason: KafkaError = error.args[0]
        if reason.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise TopicsMissing(topics=self._wire)
        self._contact.lose(reason.str())
        self._contact.check(self._consumer)
