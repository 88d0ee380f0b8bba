"""A worker's group and topics in: is what it has not read still there? And heads to read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from schemas.errors_process import OffsetsLost, WorkerFailed

log = structlog.get_logger(__name__)

REQUEST_SECONDS_MAX = 20


def check_kept(
    admin: Any, group: str, topics: Mapping[str, int], *, accept_lost: bool = False
) -> None:
    """Compare what a group has committed with what its topics still hold.

    A partition without a commit was never read: all that it holds will be.

    Parameters
    ----------
    admin
        An admin client of brokers that answer.
    group
        The consumer group.
    topics
        Partitions of each topic, by its name on the brokers.
    accept_lost
        Say what is lost, and no more.

    Raises
    ------
    OffsetsLost
        If a partition no longer holds the offset that comes next.
    """
    asked = [TopicPartition(name, n) for name, count in topics.items() for n in range(count)]
    earliest: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    oldest = admin.list_offsets(dict.fromkeys(asked, earliest), request_timeout=REQUEST_SECONDS_MAX)
    for committed in _committed(admin, group, asked):
        place = TopicPartition(committed.topic, committed.partition)
        first = oldest[place].result().offset
        if not 0 <= committed.offset < first:
            continue
        lost = OffsetsLost(
            topic=place.topic, partition=place.partition, first=committed.offset, last=first - 1
        )
        if not accept_lost:
            raise lost
        log.warning("offsets_lost_accepted", what=lost.what_text)


def read_again(admin: Any, group: str, topic: str) -> None:
    """Let a group that nobody is in read a topic of one partition from its beginning.

    Raises
    ------
    WorkerFailed
        If the brokers will not: somebody is in the group.
    """
    begin = TopicPartition(topic, 0, 0)
    asked = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, [begin])], request_timeout=REQUEST_SECONDS_MAX
    )
    try:
        failed = [one for one in asked[group].result().topic_partitions if one.error]
    except KafkaException as error:
        raise WorkerFailed(lane="head", detail=_in_use(group, error.args[0].str())) from error
    if failed:
        raise WorkerFailed(lane="head", detail=_in_use(group, failed[0].error.str()))
    log.info("heads_read_again", group=group)


def _in_use(group: str, reason: str) -> str:
    return f"the offsets of group {group} cannot be set while a worker is in it ({reason})"


def _committed(admin: Any, group: str, asked: list[TopicPartition]) -> list[TopicPartition]:
    """Committed offsets; a group that does not exist yet has none."""
    wanted = ConsumerGroupTopicPartitions(group, asked)
    future = admin.list_consumer_group_offsets([wanted], request_timeout=REQUEST_SECONDS_MAX)
    found: list[TopicPartition] = future[group].result().topic_partitions
    return found
