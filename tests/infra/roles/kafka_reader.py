"""A broker's topics in, every message that lies in them out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from infra.kafka.clients import consumer_config
from infra.settings_cluster import KafkaSettings
from schemas.segments import Envelope
from schemas.topics import topic_name, topics_by_name


@contextmanager
def reading(kafka: KafkaSettings) -> Iterator[Any]:
    """A consumer that tells where a partition ends."""
    consumer = Consumer(consumer_config(kafka, "reader") | {"enable.partition.eof": True})
    try:
        yield consumer
    finally:
        consumer.close()


def read_topic(kafka: KafkaSettings, topic: str) -> list[Envelope]:
    """What lies in a topic now: partition by partition, in order."""
    partitions = topics_by_name()[topic].partitions(kafka.partitions)
    found: list[tuple[int, int, Envelope]] = []
    with reading(kafka) as consumer:
        name = topic_name(kafka.topic_prefix, topic)
        consumer.assign([TopicPartition(name, one, OFFSET_BEGINNING) for one in range(partitions)])
        ended: set[int] = set()
        while len(ended) < partitions:
            got = consumer.poll(1.0)
            if got is None:
                continue
            if got.error() is None:
                headers = {key: text.decode() for key, text in got.headers() or []}
                envelope = Envelope(topic, got.key(), got.value(), headers)
                found.append((got.partition(), got.offset(), envelope))
            elif got.error().code() == KafkaError._PARTITION_EOF:
                ended.add(got.partition())
    return [envelope for _, _, envelope in sorted(found, key=lambda one: one[:2])]
