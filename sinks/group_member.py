"""A consumer of a group in, its messages as envelopes and a quiet leave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from schemas.segments import Envelope

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 10.0
"""How long giving the partitions back may take."""


def leave_group(consumer: Any, clock: Callable[[], float]) -> None:
    """Give the partitions back, then close.

    Closing alone is not safe: in the midst of a rebalance librdkafka 2.16 waits for ever in
    ``incremental_unassign``, and confluent-kafka holds the interpreter's lock meanwhile. So a
    static member leaves, too, and its partitions go to the others at once. A member that was put
    out of the group, such as one whose name another has taken, has nothing to give back.
    """
    try:
        consumer.unsubscribe()
    except KafkaException as error:
        if error.args[0].code() != KafkaError._FATAL:
            raise
        log.info("left_as_no_member", reason=error.args[0].str())
    until = clock() + LEAVE_SECONDS
    while consumer.assignment() and clock() < until:
        consumer.poll(0.05)
    consumer.close()


def envelope_of(message: Any, topic: str) -> Envelope:
    """A Kafka message as an envelope of `topic`; headers that are no text are left out."""
    headers = {}
    for name, value in message.headers() or ():
        if isinstance(value, bytes):
            headers[name] = value.decode(errors="replace")
    return Envelope(topic, message.key() or b"", message.value() or b"", headers)
