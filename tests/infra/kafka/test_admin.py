"""Topics made, compared, changed and checked on a real broker."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from infra.kafka.admin import (
    alter_topics,
    check_topics,
    connect,
    create_topics,
    describe_topics,
    topic_config,
)
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import (
    BrokerUnreachable,
    MessageLimitTooSmall,
    PartitionsNotFewer,
    PartitionsTooFew,
    TopicsMissing,
    TopicsRefused,
)
from schemas.topics import TOPICS, Topic


def test_every_declared_topic_is_made_as_declared_and_once(kafka_settings: KafkaSettings) -> None:
    made = create_topics(kafka_settings)

    assert made == [f"{kafka_settings.topic_prefix}{topic.name}" for topic in TOPICS]
    assert create_topics(kafka_settings) == []
    assert [state.differences for state in describe_topics(kafka_settings)] == [()] * len(TOPICS)
    assert check_topics(kafka_settings) == {topic.name: topic.partitions(4) for topic in TOPICS}


def test_a_role_is_told_which_topics_are_missing(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(TopicsMissing) as raised:
        check_topics(kafka_settings, ["forks", "claims"])

    assert f"{kafka_settings.topic_prefix}forks" in raised.value.what_text
    assert "headrace topics create" in raised.value.fix_text


def test_topics_follow_the_settings(kafka: KafkaSettings) -> None:
    more = kafka.model_copy(update={"partitions": 6, "message_bytes_max": 40 * 1024**2})
    with pytest.raises(PartitionsTooFew, match="4 partition"):
        check_topics(more, ["events.head"])
    wider = kafka.model_copy(update={"message_bytes_max": 40 * 1024**2})
    with pytest.raises(MessageLimitTooSmall, match=r"events\.head"):
        check_topics(wider, ["events.head"])

    changed = alter_topics(more)

    assert len(changed) == len(TOPICS)
    assert alter_topics(more) == []
    assert check_topics(more, ["events.head"]) == {"events.head": 6}
    with pytest.raises(PartitionsNotFewer, match="6 partitions"):
        alter_topics(kafka)


def test_more_partitions_than_declared_do_no_harm(kafka: KafkaSettings) -> None:
    fewer = kafka.model_copy(update={"partitions": 2})

    assert check_topics(fewer, ["events.head", "forks"]) == {"events.head": 4, "forks": 1}


def test_brokers_that_cannot_make_a_topic_are_quoted(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(TopicsRefused) as raised:
        create_topics(kafka_settings.model_copy(update={"replication_factor": 3}))

    assert "replication factor" in raised.value.what_text.lower()


def test_brokers_that_do_not_answer_are_named(dead_address: str) -> None:
    with capture_logs() as lines, pytest.raises(BrokerUnreachable) as raised:
        connect(KafkaSettings(bootstrap=(dead_address,), unreachable_seconds_max=1))

    assert dead_address in raised.value.what_text
    assert "refused" in raised.value.what_text.lower()
    (line,) = lines
    assert line["gives_up_after_seconds"] == 1
    assert line["addresses"] == [dead_address]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_message_fits_into_a_file_of_its_topic(topic: Topic) -> None:
    kafka = KafkaSettings(message_bytes_max=100 * 1024**2, retention_bytes=1024**2)
    config = topic_config(topic, kafka)

    assert int(config["max.message.bytes"]) > kafka.message_bytes_max
    assert int(config.get("segment.bytes", 2**30)) >= int(config["max.message.bytes"])
    assert (config["cleanup.policy"] == "compact") == (topic.retention == "newest")
