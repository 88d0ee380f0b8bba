"""Topics as declared: every message has one, every key a partition."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro_schemas import released_schemas
from schemas.segments import DATA_TOPICS, SegmentName, segment_envelope
from schemas.topics import TOPICS, Topic, partition_of, topic_name, topics_by_name


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_is_declared_whole(topic: Topic) -> None:
    assert re.fullmatch(r"[a-z0-9._-]+", topic.name)
    assert topic.doc
    assert topic.key
    assert topics_by_name()[topic.name] is topic
    assert topic.partitions(7) == (7 if topic.partitioned else 1)


def test_every_released_message_has_a_topic() -> None:
    carried = {message for topic in TOPICS for message in topic.messages}

    assert carried == {message for message, _layout in released_schemas()}


def test_names_differ_also_where_kafka_takes_dots_for_underscores() -> None:
    names = {topic.name.replace(".", "_") for topic in TOPICS}

    assert len(names) == len(TOPICS)
    assert topic_name("mine.", "forks") == "mine.forks"


@pytest.mark.parametrize("stream", DATA_TOPICS)
def test_a_segment_goes_to_a_declared_topic(stream: str) -> None:
    name = SegmentName(5, stream, "head", 37, 37, b"\1" * 32, "0" * 16)  # type: ignore[arg-type]
    envelope = segment_envelope(name, 10, b"")

    assert topics_by_name()[envelope.topic].messages == (envelope.headers["schema"],)
    assert partition_of(envelope.key, 4) == (5 + 3) % 4


@given(
    chain_id=st.integers(1, 2**63),
    segment=st.integers(0, 2**63),
    partitions=st.integers(1, 1024),
)
def test_neighbouring_segments_share_the_work(chain_id: int, segment: int, partitions: int) -> None:
    ones = [
        partition_of(f"{chain_id}:{segment + step}".encode(), partitions)
        for step in range(partitions)
    ]

    assert sorted(ones) == list(range(partitions))
    assert partition_of(str(chain_id).encode(), partitions) == chain_id % partitions


def test_a_key_of_another_form_has_no_partition_of_its_own() -> None:
    assert partition_of(b"1:c0ffee", 1) == 0
    with pytest.raises(ValueError, match="invalid literal"):
        partition_of(b"1:coffee", 4)
