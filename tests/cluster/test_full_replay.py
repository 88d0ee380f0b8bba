"""Offsets of every group set back to the beginning: all is read again, and nothing changes."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.devchain import serve_in_thread
from infra.kafka.clients import consumer_config
from infra.settings_cluster import KafkaSettings
from schemas.segments import DATA_TOPICS, data_topic
from schemas.topics import topic_name
from tests.cluster.cluster_rig import cluster
from tests.cluster.hashes import hashes
from tests.e2e.mining import fresh_dice
from tests.e2e.running import small_chain, tables, until
from tests.patience import PATIENCE_SECONDS
from tests.stored_truth import assert_stored

READERS = {
    "process.history": ("raw.logs.history", "events.history"),
    "process.head": ("raw.logs.head", "events.head", "raw.heads"),
    "sink.history": tuple(data_topic(stream, "history") for stream in DATA_TOPICS),
    "sink.head": tuple(data_topic(stream, "head") for stream in DATA_TOPICS),
}
"""What each group reads."""
MEMBERS_LEFT = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
)
"""How the brokers refuse offsets of a group whose static members have not timed out yet."""


def lag(kafka: KafkaSettings, group: str) -> int:
    """Messages that a group has yet to commit."""
    consumer = Consumer(consumer_config(kafka, topic_name(kafka.topic_prefix, group)))
    try:
        places = [
            TopicPartition(name, number)
            for name in (topic_name(kafka.topic_prefix, topic) for topic in READERS[group])
            for number in consumer.list_topics(name, PATIENCE_SECONDS).topics[name].partitions
        ]
        behind = 0
        for place in consumer.committed(places, PATIENCE_SECONDS):
            bare = TopicPartition(place.topic, place.partition)
            low, high = consumer.get_watermark_offsets(bare, PATIENCE_SECONDS)
            behind += high - max(low, place.offset)
        return behind
    finally:
        consumer.close()


def set_back(kafka: KafkaSettings, group: str) -> bool:
    """Let a group begin again; False while the brokers still count members of it."""
    consumer = Consumer(consumer_config(kafka, topic_name(kafka.topic_prefix, group)))
    try:
        places = [
            TopicPartition(name, number, 0)
            for name in (topic_name(kafka.topic_prefix, topic) for topic in READERS[group])
            for number in consumer.list_topics(name, PATIENCE_SECONDS).topics[name].partitions
        ]
        consumer.commit(offsets=places, asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in MEMBERS_LEFT:
            raise
        return False
    finally:
        consumer.close()
    return True


@pytest.mark.timeout(1200, func_only=True)
def test_a_full_replay_changes_nothing(tmp_path: Path, kafka_bootstrap: str) -> None:
    dice = fresh_dice()
    chain = small_chain(seed=dice.randrange(1 << 20))
    chain.mine(60)
    prefix = f"replay.{secrets.token_hex(3)}."
    with (
        serve_in_thread(chain) as serving,
        cluster(tmp_path, kafka_bootstrap, prefix, serving.http_urls) as running,
    ):
        running.start_all()
        running.wait_for(chain.head.header.number)
        for _ in range(3):
            chain.mine(3)
            chain.reorg(dice.randint(1, 4))
        running.wait_for(chain.head.header.number)
        for name in ("ingest", "process-history", "process-head", "sink"):
            running.remove(name)
        with running.connect() as connection:
            assert_stored(connection, tables(), chain.blocks())
            before = hashes(connection)
        kafka = running.settings.kafka
        for group in READERS:
            until(lambda g=group: set_back(kafka, g), f"{group} keeps its members")
            assert lag(kafka, group) > 0, group
        running.start("process-history", "process", "--lanes", "history")
        running.start("process-head", "process", "--lanes", "head")
        running.start("sink", "sink")
        for group in READERS:
            until(lambda g=group: lag(kafka, g) == 0, f"{group} does not get on")
        with running.connect() as connection:
            assert hashes(connection) == before
        chain.mine(2)
        running.start("ingest", "ingest")
        running.wait_for(chain.head.header.number)
        with running.connect() as connection:
            assert_stored(connection, tables(), chain.blocks())
