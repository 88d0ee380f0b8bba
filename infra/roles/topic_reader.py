"""A topic's partition and offsets in, its messages as envelopes out, outside of any group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.clients import reader_config
from infra.kafka.contact import Contact
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import TopicsMissing
from schemas.segments import Envelope
from schemas.topics import topic_name
from sinks.consumer import envelope_of

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
    """Reads a topic; for one thread.

    Parameters
    ----------
    kafka
        The settings.
    topic
        Its name without the prefix.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._wire = topic_name(kafka.topic_prefix, topic)
        self._contact = Contact(kafka)
        config = reader_config(kafka, f"{self._wire}.reader")
        self._consumer: Any = Consumer(config | {"error_cb": self._contact.on_error})

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the brokers."""
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
        """Go on with `poll` from an offset of one partition."""
        self._consumer.assign([TopicPartition(self._wire, partition, offset)])

    def poll(self, seconds: float) -> list[Read]:
        """The messages that have come, after `seconds` at most.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        self._contact.check(self._consumer)
        first = self._consumer.poll(seconds)
        if first is None:
            return []
        found = []
        for got in (first, *self._consumer.consume(256, timeout=0)):
            error = got.error()
            if error is None:
                envelope = envelope_of(got, self.topic)
                at_ms = got.timestamp()[1]
                found.append(Read(got.partition(), got.offset(), at_ms, envelope))
            elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicsMissing(topics=self._wire)
            else:
                self._contact.on_error(error)
        return found

    def read(self, partition: int, from_offset: int, to_offset: int) -> Iterator[Read]:
        """The messages that are kept of ``[from_offset, to_offset)``, oldest first.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        low, high = self.bounds(partition)
        at, end = max(low, from_offset), min(high, to_offset)
        self.seek(at, partition)
        quiet_since = time.monotonic()
        while at < end:
            got = self.poll(POLL_SECONDS)
            if got:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > BROKERS_SECONDS:
                # What is left has been compacted, or dropped by retention meanwhile.
                return
            for one in got:
                at = one.offset + 1
                if one.offset < end:
                    yield one

    def _lost(self, error: KafkaException) -> None:
        reason: KafkaError = error.args[0]
        if reason.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise TopicsMissing(topics=self._wire)
        self._contact.lose(reason.str())
        self._contact.check(self._consumer)
