"""Kafka settings in, the messages of a one-partition topic out: all there are, then what comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.clients import reader_config
from infra.kafka.contact import Contact
from infra.settings_cluster import KafkaSettings
from ingest.checkpoint import checkpoint_key
from schemas.codec import UnknownMessage, decode_fork_update, decode_ingest_checkpoint
from schemas.segments import BlockRef, IngestCheckpoint
from schemas.topics import topic_name

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
FORKS_LOOKED_BACK = 2_000
"""Fork updates that are looked through, newest first, for one of our chain."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it lies in a topic."""

    offset: int
    """Its offset."""
    key: bytes
    """Its key."""
    value: bytes
    """Its bytes; empty where a key was deleted."""


class TopicTail:
    """Reads the one partition of a topic, outside of any group.

    `poll` and `close` are for any thread, the rest for one.

    Parameters
    ----------
    kafka
        The settings.
    topic
        Its name without the prefix.
    offset
        Where to begin; None for the beginning. One that is no longer kept begins there, too.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, offset: int | None = None) -> None:
        self._name = topic_name(kafka.topic_prefix, topic)
        self._contact = Contact(kafka)
        config: dict[str, Any] = reader_config(kafka, f"{self._name}.reader")
        config |= {"enable.partition.eof": True, "error_cb": self._contact.on_error}
        self._consumer = Consumer(config)
        start = OFFSET_BEGINNING if offset is None else offset
        self._consumer.assign([TopicPartition(self._name, 0, start)])
        self._lock = threading.Lock()
        self._closed = False

    def bounds(self) -> tuple[int, int]:
        """The first offset that is kept, and the next one to be written.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(self._name, 0), timeout=5.0
                )
            except KafkaException as error:
                self._contact.lose(error.args[0].str())
                self._contact.check(self._consumer)
                continue
            return low, high

    def seek(self, offset: int) -> None:
        """Go on from another offset."""
        self._consumer.assign([TopicPartition(self._name, 0, offset)])

    def read_to_end(self) -> list[Message]:
        """Every message from here to the present end.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        found: list[Message] = []
        while True:
            got = self._consumer.poll(POLL_SECONDS)
            if got is None:
                self._contact.check(self._consumer)
                continue
            error = got.error()
            if error is None:
                found.append(_message(got))
            elif error.code() == KafkaError._PARTITION_EOF:
                return found
            else:
                self._contact.on_error(error)

    def poll(self, seconds: float) -> list[Message]:
        """The messages that have come, after `seconds` at most; none once it is closed.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        with self._lock:
            return [] if self._closed else self._poll(seconds)

    def close(self) -> None:
        """Leave the brokers, once whoever polls has had its answer."""
        with self._lock:
            self._closed = True
            self._consumer.close()

    def _poll(self, seconds: float) -> list[Message]:
        until = time.monotonic() + seconds
        found: list[Message] = []
        while not found and (left := until - time.monotonic()) > 0:
            for got in self._consumer.consume(100, timeout=min(left, 0.5)):
                error = got.error()
                if error is None:
                    found.append(_message(got))
                elif error.code() != KafkaError._PARTITION_EOF:
                    self._contact.on_error(error)
            self._contact.check(self._consumer)
        return found


def newest_checkpoints(
    messages: Iterable[Message], chain_id: int, content_version: str
) -> list[IngestCheckpoint]:
    """The checkpoints of a chain's content, oldest first: all of them count together.

    One that cannot be read is left out: what it covers is ingested again at worst, and the next
    checkpoint takes its place under the key.
    """
    key = checkpoint_key(chain_id, content_version)
    found: list[IngestCheckpoint] = []
    for message in messages:
        if message.key != key or not message.value:
            continue
        try:
            found.append(decode_ingest_checkpoint(message.value))
        except UnknownMessage as error:
            log.warning("checkpoint_unread", offset=message.offset, code=error.code)
    return found


def told_as_final(tail: TopicTail, chain_id: int) -> BlockRef | None:
    """The newest block that the reorg agent calls final, by its own last word on the chain.

    Parameters
    ----------
    tail
        Of the topic ``forks``.
    chain_id
        The chain.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    low, high = tail.bounds()
    tail.seek(max(low, high - FORKS_LOOKED_BACK))
    if low == high:
        return None
    for message in reversed(tail.read_to_end()):
        if message.key == str(chain_id).encode():
            try:
                return decode_fork_update(message.value).finalized
            except UnknownMessage as error:
                # Somebody else's, or damaged: the word before it is as good to go on from.
                log.warning("fork_update_unread", offset=message.offset, code=error.code)
    return None


def _message(got: Any) -> Message:
    return Message(got.offset(), got.key() or b"", got.value() or b"")
