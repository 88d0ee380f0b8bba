"""`headrace process` as a process on a real broker: it derives what the embedded pipeline does."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer

from infra.kafka.clients import producer_config
from infra.kafka.producer import EnvelopeProducer
from infra.settings_cluster import KafkaSettings
from schemas.codec import UnknownMessage, decode_dead_letter, encode_head_observed
from schemas.segments import AGAIN, Envelope, HeadObserved
from schemas.topics import partition_of, topic_name
from sinks.dead_letters import dead_letter
from tests.infra.roles.kafka_reader import read_topic
from tests.infra.roles.workers import (
    Worker,
    count,
    distinct,
    drained,
    embedded,
    place,
    raw_logs,
    send,
    until,
    worker,
)
from tests.patience import PATIENCE_SECONDS

RAW, EVENTS, AGGREGATES = "raw.logs.history", "events.history", "aggregates.history"


def test_events_and_aggregates_are_those_of_the_embedded_pipeline(kafka: KafkaSettings) -> None:
    raw = list(raw_logs())
    raw[3] = replace(raw[3], headers={**raw[3].headers, AGAIN: "asked-1"})
    send(kafka, raw)
    with worker(kafka, "history") as one:
        until(lambda: count(kafka, AGGREGATES) >= len(raw), "aggregates", one)
        said = one.stop()
    assert one.code == 0, said

    for topic in (EVENTS, AGGREGATES):
        made = {place(found): found for found in read_topic(kafka, topic)}
        assert len(made) == len(raw)
        for envelope in embedded(raw, topic):
            found = made[place(envelope)]
            asked = envelope.headers["from"] == raw[3].headers["from"]
            assert found.value == envelope.value
            assert found.key == envelope.key
            assert found.headers == envelope.headers | ({AGAIN: "asked-1"} if asked else {})
    assert drained(kafka, "history", RAW), "what is done is committed when it drains"


def damaged(raw: Envelope, rng: random.Random) -> list[Envelope]:
    """Messages that cannot be taken, each its own way."""
    head = HeadObserved(1, 2, bytes(32), bytes(32), 3, 4, "node")
    events = embedded([raw])[0].value
    return [
        replace(raw, value=raw.value[: rng.randrange(11, len(raw.value))]),
        replace(raw, value=raw.value[:2] + rng.randbytes(8) + raw.value[10:]),
        replace(raw, value=b'{"block": 1}', key=b"foreign", headers={}),
        replace(raw, value=b""),
        replace(raw, value=events),
        replace(raw, value=encode_head_observed(head)),
        replace(raw, value=rng.randbytes(1000)),
    ]


def test_poison_goes_to_dead_letters_and_the_rest_is_derived(kafka: KafkaSettings) -> None:
    rng = random.Random(5)
    raw = list(raw_logs())
    poison = damaged(raw[7], rng)
    mixed = [*raw, *poison]
    rng.shuffle(mixed)
    partition = partition_of(raw[7].key, kafka.partitions)
    with_partition = [one for one in mixed if one.key != b"foreign"]
    send(kafka, with_partition)
    with EnvelopeProducer(kafka) as producer:
        producer.deliver_blocking(poison[2], partition=partition)
    with worker(kafka, "history", "--agents", "decode") as one:
        until(lambda: count(kafka, "dead_letters") >= len(poison), "dead letters", one)
        until(lambda: count(kafka, EVENTS) >= len(raw), "events", one)
        said = one.stop()
    assert one.code == 0, said

    assert distinct(kafka, EVENTS) == {place(made): made.value for made in embedded(raw)}
    letters = read_topic(kafka, "dead_letters")
    read = [decode_dead_letter(one.value) for one in letters]
    assert sorted(letter.value for letter in read) == sorted(bad.value for bad in poison)
    error = UnknownMessage(size_bytes=0, expected="", reason="")
    for envelope, letter in zip(letters, read, strict=True):
        assert (letter.stage, letter.reason_code, letter.topic) == ("decode", "HR-3901", RAW)
        assert letter.partition == partition
        source = next(bad for bad in poison if bad.value == letter.value)
        same = dead_letter(source, letter.partition, letter.offset, error, "decode", 0)
        assert (envelope.key, envelope.headers) == (same.key, same.headers), "one form of letters"
    assert "HR-3901" in said
    assert drained(kafka, "history", RAW)


def test_poison_that_leaves_its_letter_no_room_and_headers_that_are_no_text(
    kafka: KafkaSettings,
) -> None:
    """A letter that would be too large keeps the reason alone; no header ends the worker."""
    raw = raw_logs()[0]
    partition = partition_of(raw.key, kafka.partitions)
    name = topic_name(kafka.topic_prefix, RAW)
    producer = Producer(producer_config(kafka))
    large = random.Random(6).randbytes(kafka.message_bytes_max - 100)
    strange = [(AGAIN, b"\xff"), ("nothing", None)]
    for value in (large, b"foreign", raw.value):
        producer.produce(name, value, raw.key, partition=partition, headers=strange)
    assert producer.flush(PATIENCE_SECONDS) == 0
    with worker(kafka, "history", "--agents", "decode") as one:
        until(lambda: count(kafka, EVENTS) >= 1, "events", one)
        said = one.stop()
    assert one.code == 0, said

    letters = [decode_dead_letter(found.value) for found in read_topic(kafka, "dead_letters")]
    assert [letter.value for letter in letters] == [b"", b"foreign"]
    assert {letter.reason_code for letter in letters} == {"HR-3901"}
    assert drained(kafka, "history", RAW)


def moved(kafka: KafkaSettings, one: Worker, before: int) -> bool:
    """Whether a worker is at work: the brokers may still take what its killed forerunner sent."""
    return one.ready and (count(kafka, EVENTS) > before or drained(kafka, "history", RAW))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_and_stopped_at_any_moment_nothing_is_lost(
    kafka: KafkaSettings, seed: int, tmp_path: Path
) -> None:
    """Whatever the moment: what was not acknowledged is read again by the next one."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    raw = list(raw_logs()) * 10
    rng.shuffle(raw)
    send(kafka, raw)
    lives = 0
    while not drained(kafka, "history", RAW):
        lives += 1
        assert lives < 12
        with worker(kafka, "history", "--agents", "decode", TMPDIR=str(tmp_path)) as one:
            until(partial(moved, kafka, one, count(kafka, EVENTS)), "the first event", one)
            if lives < 6:
                said = one.stop(rng.choice([signal.SIGKILL, signal.SIGTERM]))
                assert one.code in (0, -signal.SIGKILL), said
                continue
            until(lambda: drained(kafka, "history", RAW), "the last commit", one)
    assert distinct(kafka, EVENTS) == {place(made): made.value for made in embedded(raw_logs())}
    assert not list(tmp_path.iterdir()), "a worker that is killed leaves nothing behind"
