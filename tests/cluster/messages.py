"""Topics in, the same topics with messages that nobody asked for out."""

from __future__ import annotations

from random import Random
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from infra.kafka.clients import consumer_config, producer_config
from infra.settings_cluster import KafkaSettings
from schemas.segments import DEAD_LETTERS
from schemas.topics import CHECKPOINTS, FORK_STATE, TOPICS, topic_name
from tests.patience import PATIENCE_SECONDS

RAW = ("raw.blocks.history", "raw.blocks.head", "raw.logs.history", "raw.logs.head", "raw.heads")
REPEATED_MAX = 200


def poison_every_topic(kafka: KafkaSettings, dice: Random) -> int:
    """Put bytes that no role can take into every topic that a role reads; how many."""
    producer = Producer(producer_config(kafka))
    sent = 0
    for topic in TOPICS:
        if topic.name in (DEAD_LETTERS, CHECKPOINTS, FORK_STATE):
            continue
        name = topic_name(kafka.topic_prefix, topic.name)
        some = _messages(kafka, name, 1)
        known = some[0].value() if some else b"\xc3\x01" + bytes(40)
        for value in (
            b"",
            b"not one of ours",
            b"\xc3\x01" + dice.randbytes(8) + b"of a schema that nobody knows",
            known[: max(11, len(known) // 2)],
        ):
            producer.produce(name, value, b"1337:0", headers={"lane": "head"})
            sent += 1
    assert producer.flush(PATIENCE_SECONDS) == 0
    return sent


def duplicate_raw(kafka: KafkaSettings, dice: Random) -> int:
    """Produce what the raw topics hold once more, in another order; how many messages."""
    producer = Producer(producer_config(kafka))
    sent = 0
    for name in (topic_name(kafka.topic_prefix, raw) for raw in RAW):
        found = _messages(kafka, name, REPEATED_MAX)
        dice.shuffle(found)
        for message in found:
            producer.produce(
                name,
                message.value(),
                message.key(),
                partition=message.partition(),
                headers=message.headers(),
            )
            sent += 1
    assert producer.flush(PATIENCE_SECONDS) == 0
    return sent


def count_messages(kafka: KafkaSettings, topic: str) -> int:
    """How many messages a topic holds."""
    consumer = Consumer(consumer_config(kafka, "count"))
    try:
        name = topic_name(kafka.topic_prefix, topic)
        partitions = consumer.list_topics(name, PATIENCE_SECONDS).topics[name].partitions
        return sum(
            high - low
            for low, high in (
                consumer.get_watermark_offsets(TopicPartition(name, number), PATIENCE_SECONDS)
                for number in partitions
            )
        )
    finally:
        consumer.close()


def _messages(kafka: KafkaSettings, name: str, most: int) -> list[Any]:
    """The first messages of a topic."""
    consumer = Consumer(consumer_config(kafka, "look"))
    try:
        partitions = consumer.list_topics(name, PATIENCE_SECONDS).topics[name].partitions
        ends = {
            number: consumer.get_watermark_offsets(TopicPartition(name, number), PATIENCE_SECONDS)
            for number in partitions
        }
        there = min(most, sum(high - low for low, high in ends.values()))
        consumer.assign([TopicPartition(name, number, ends[number][0]) for number in partitions])
        found: list[Any] = []
        while len(found) < there:
            message = consumer.poll(PATIENCE_SECONDS)
            assert message is not None, f"{len(found)} of {there} messages of {name}"
            assert message.error() is None, message.error()
            found.append(message)
        return found
    finally:
        consumer.close()
