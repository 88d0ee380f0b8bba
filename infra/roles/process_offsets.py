"""A worker's group and topics in: is what it has not read still there? And heads to read again.

Asked by a consumer that never joins the group: the admin client's own question for the offsets of
a group ends the process with a segmentation fault where the group's coordinator is still loading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.clients import reader_config
from infra.settings_cluster import KafkaSettings
from schemas.errors_process import OffsetsLost, WorkerFailed

log = structlog.get_logger(__name__)

REQUEST_SECONDS_MAX = 20.0
ASK_AGAIN_SECONDS = 0.2
COORDINATOR_COMES = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT,
    }
)
"""A broker that just started says so."""

T = TypeVar("T")


class GroupOffsets:
    """The committed offsets of a group, looked at and set from outside of it.

    Parameters
    ----------
    kafka
        The settings.
    group
        The consumer group.
    """

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        config = reader_config(kafka, group, client_id="headrace-process")
        self._group = group
        self._consumer: Any = Consumer(config)

    def close(self) -> None:
        """Let the brokers go."""
        self._consumer.close()

    def check_kept(self, topics: Mapping[str, int], *, accept_lost: bool = False) -> None:
        """Compare what the group has committed with what its topics still hold.

        A partition without a commit was never read: all that it holds will be.

        Parameters
        ----------
        topics
            Partitions of each topic, by its name on the brokers.
        accept_lost
            Say what is lost, and no more.

        Raises
        ------
        OffsetsLost
            If a partition no longer holds the offset that comes next.
        WorkerFailed
            If the brokers do not say.
        """
        asked = [TopicPartition(name, n) for name, count in topics.items() for n in range(count)]
        for next_one in self._ask(lambda: self._consumer.committed(asked, REQUEST_SECONDS_MAX)):
            if next_one.offset < 0:
                continue
            first, _ = self._ask(
                partial(self._consumer.get_watermark_offsets, next_one, REQUEST_SECONDS_MAX)
            )
            if next_one.offset >= first:
                continue
            lost = OffsetsLost(
                topic=next_one.topic,
                partition=next_one.partition,
                first=next_one.offset,
                last=first - 1,
            )
            if not accept_lost:
                raise lost
            log.warning("offsets_lost_accepted", what=lost.what_text)

    def read_again(self, topic: str) -> None:
        """Let the group, which nobody may be in, read a topic of one partition from its beginning.

        Raises
        ------
        WorkerFailed
            If the brokers will not: a worker is still in the group.
        """
        begin = TopicPartition(topic, 0, 0)
        self._ask(lambda: self._consumer.commit(offsets=[begin], asynchronous=False))
        log.info("heads_read_again", group=self._group)

    def _ask(self, ask: Callable[[], T]) -> T:
        """The answer, asked for again while the group's coordinator is on its way."""
        until = time.monotonic() + REQUEST_SECONDS_MAX
        while True:
            try:
                return ask()
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.code() not in COORDINATOR_COMES or time.monotonic() > until:
                    detail = f"group {self._group}: {error.str()}"
                    raise WorkerFailed(detail=detail) from raised
            time.sleep(ASK_AGAIN_SECONDS)


@contextmanager
def group_offsets(kafka: KafkaSettings, group: str) -> Iterator[GroupOffsets]:
    """The offsets of a group while the context lasts."""
    offsets = GroupOffsets(kafka, group)
    try:
        yield offsets
    finally:
        offsets.close()
