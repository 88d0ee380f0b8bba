"""Envelopes through a real broker: acknowledged, bounded, refused by name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.kafka.clients import consumer_config
from infra.kafka.producer import EnvelopeProducer
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import (
    BrokerUnreachable,
    MessageTooLarge,
    PartitionsTooFew,
    TopicsMissing,
)
from schemas.segments import Envelope
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def producer(kafka: KafkaSettings) -> Iterator[EnvelopeProducer]:
    with EnvelopeProducer(kafka) as producer:
        yield producer


def envelope(number: int, value: bytes = b"v") -> Envelope:
    return Envelope("events.head", f"1:{number}".encode(), value, {"lane": "head", "again": "é"})


def read(kafka: KafkaSettings, topic: str, partition: int, count: int) -> list[Any]:
    reader: Any = Consumer(consumer_config(kafka, f"{kafka.topic_prefix}reader"))
    reader.assign([TopicPartition(f"{kafka.topic_prefix}{topic}", partition, 0)])
    found: list[Any] = []
    while len(found) < count:
        message = reader.poll(PATIENCE_SECONDS)
        assert message is not None, f"{len(found)} of {count} messages"
        assert message.error() is None
        found.append(message)
    reader.close()
    return found


async def test_an_envelope_arrives_whole(kafka: KafkaSettings, producer: EnvelopeProducer) -> None:
    where = await producer.deliver(envelope(6, b"\0whole"))

    assert where == ((1 + 6) % 4, 0)
    (message,) = read(kafka, "events.head", 3, 1)
    assert (message.key(), message.value()) == (b"1:6", b"\0whole")
    assert dict(message.headers()) == {"lane": b"head", "again": "é".encode()}


async def test_a_put_is_told_on_its_own_loop(producer: EnvelopeProducer) -> None:
    told: list[tuple[bytes, int, int, threading.Thread]] = []
    everything = asyncio.Event()

    def on_delivered(one: Envelope, partition: int, offset: int) -> None:
        told.append((one.key, partition, offset, threading.current_thread()))
        if len(told) == 3:
            everything.set()

    for number in range(3):
        await producer.put(envelope(number), partition=2, on_delivered=on_delivered)
    await everything.wait()

    here = threading.current_thread()
    assert told == [(f"1:{number}".encode(), 2, number, here) for number in range(3)]
    assert await asyncio.to_thread(producer.flush, PATIENCE_SECONDS) == 0


def test_threads_are_served_too(kafka: KafkaSettings, producer: EnvelopeProducer) -> None:
    told: list[int] = []
    for number in range(50):
        producer.put_blocking(
            envelope(number),
            partition=0,
            on_delivered=lambda _one, _at, offset: told.append(offset),
        )

    assert producer.deliver_blocking(envelope(50), partition=0) == (0, 50)
    assert told == list(range(50))
    assert (producer.undelivered, producer.bytes_undelivered) == (0, 0)
    assert [one.offset() for one in read(kafka, "events.head", 0, 51)] == list(range(51))


async def test_bytes_under_way_are_bounded(kafka: KafkaSettings) -> None:
    with EnvelopeProducer(kafka, bytes_max=1000) as producer:
        most = 0
        for number in range(30):
            await producer.put(envelope(number, b"x" * 400))
            most = max(most, producer.bytes_undelivered)
        await producer.put(envelope(30, b"x" * 5000))
        assert producer.flush(PATIENCE_SECONDS) == 0

    assert most <= 1000


def test_a_thread_does_not_wait_for_ever(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, may_go_on = threading.Event(), threading.Event()

    def hold(_one: Envelope, _partition: int, _offset: int) -> None:
        held.set()
        may_go_on.wait()

    with EnvelopeProducer(kafka, bytes_max=100) as producer:
        try:
            producer.put_blocking(envelope(1, b"x" * 60), on_delivered=hold)
            assert held.wait(PATIENCE_SECONDS)
            # Only now: the brokers may take their time with the first one.
            monkeypatch.setattr(EnvelopeProducer, "_patience_seconds", 0.1)
            with pytest.raises(BrokerUnreachable):
                producer.put_blocking(envelope(2, b"x" * 60))
            with pytest.raises(BrokerUnreachable):
                producer.deliver_blocking(envelope(3, b"x" * 10))
        finally:
            may_go_on.set()


async def test_a_message_too_large_is_refused_alone(
    kafka: KafkaSettings, producer: EnvelopeProducer
) -> None:
    with pytest.raises(MessageTooLarge) as raised:
        await producer.put(envelope(1, b"x" * (kafka.message_bytes_max + 1)))

    assert "events.head" in raised.value.what_text
    assert str(kafka.message_bytes_max) in raised.value.what_text
    assert await producer.deliver(envelope(1, b"x" * kafka.message_bytes_max))


async def test_a_topic_that_takes_less_refuses_by_name(kafka: KafkaSettings) -> None:
    wider = kafka.model_copy(update={"message_bytes_max": 40 * 1024**2, "compression": "none"})
    with EnvelopeProducer(wider) as producer, pytest.raises(MessageTooLarge):
        await producer.deliver(envelope(1, b"x" * (34 * 1024**2)))


async def test_a_refused_delivery_leaves_the_producer_alive(producer: EnvelopeProducer) -> None:
    with pytest.raises(PartitionsTooFew):
        await producer.deliver(envelope(1), partition=9)

    assert await producer.deliver(envelope(1), partition=1) == (1, 0)


async def test_a_refused_put_ends_the_producer(producer: EnvelopeProducer) -> None:
    await producer.put(envelope(1))
    assert (
        producer.flush(PATIENCE_SECONDS) == 0
    )  # with the topic's metadata at hand a wrong one is known at once
    with pytest.raises(PartitionsTooFew):
        await producer.put(envelope(1), partition=9)
    for _ in range(2):
        with pytest.raises(PartitionsTooFew):
            await producer.put(envelope(1), partition=1)
    assert not producer.reachable


async def test_brokers_that_never_answer_end_the_producer_by_name(dead_address: str) -> None:
    kafka = KafkaSettings(bootstrap=(dead_address,), unreachable_seconds_max=1)
    with EnvelopeProducer(kafka) as producer:
        with pytest.raises(BrokerUnreachable) as raised:
            await producer.deliver(envelope(1))
        assert dead_address in raised.value.what_text


def test_a_callback_that_raises_is_not_lost(
    producer: EnvelopeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def broken(_one: Envelope, _partition: int, _offset: int) -> None:
        raise KeyError("oops")

    producer.put_blocking(envelope(1), on_delivered=broken)
    with pytest.raises(Exception, match="oops"):
        producer.flush(PATIENCE_SECONDS)
    assert seen


async def test_a_missing_topic_is_named(kafka_settings: KafkaSettings) -> None:
    quick = kafka_settings.model_copy(update={"unreachable_seconds_max": 5})
    with EnvelopeProducer(quick) as producer, pytest.raises((TopicsMissing, BrokerUnreachable)):
        await producer.deliver(envelope(1))
