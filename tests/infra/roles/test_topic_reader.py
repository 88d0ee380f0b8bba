"""A topic is read as a whole, however slow the brokers are, or it is said that it was not."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from infra.kafka.producer import EnvelopeProducer
from infra.roles import topic_reader
from infra.roles.topic_reader import ReadStopped, TopicReader
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import BrokerUnreachable
from schemas.segments import CHECKPOINTS, REQUESTS, Envelope
from tests.patience import PATIENCE_SECONDS

KAFKA = KafkaSettings(unreachable_seconds_max=30)


class Got:
    """A message of a client, or the end of a partition."""

    def __init__(self, offset: int, *, end: bool = False) -> None:
        self._offset, self._end = offset, end

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self._end else None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def headers(self) -> None:
        return None

    def key(self) -> bytes:
        return b""

    value = key


class Client:
    """A client whose polls take a second each."""

    def __init__(self, came: Iterator[Got | None]) -> None:
        self.seconds = 0.0
        self._came = came

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, 3

    def assign(self, _parts: object) -> None:
        """As asked."""

    def poll(self, _seconds: float) -> Got | None:
        self.seconds += 1
        return next(self._came)

    def consume(self, _count: int, timeout: float) -> list[Any]:
        return []


def reader_of(
    came: Iterator[Got | None],
    monkeypatch: pytest.MonkeyPatch,
    stopping: threading.Event | None = None,
) -> TopicReader:
    client = Client(came)
    monkeypatch.setattr(topic_reader, "Consumer", lambda _config: client)
    return TopicReader(KAFKA, REQUESTS, clock=lambda: client.seconds, stopping=stopping)


class SilentClient(Client):
    """A client whose brokers do not say where a topic ends until they are let."""

    def __init__(self) -> None:
        super().__init__(iter(()))
        self.asked, self.may_answer, self.closed = (threading.Event() for _ in range(3))
        self.closed_while_asked = False
        self._asking = False

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        self._asking = True
        self.asked.set()
        self.may_answer.wait()
        self._asking = False
        return 0, 3

    def close(self) -> None:
        self.closed_while_asked = self._asking
        self.closed.set()


def test_slow_brokers_make_no_read_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    came = [*[None] * 20, Got(0), *[None] * 20, Got(1), Got(2)]
    reader = reader_of(iter(came), monkeypatch)
    assert [one.offset for one in reader.read(0, 0, 3)] == [0, 1, 2]


def test_what_compaction_took_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(iter([Got(0), Got(3, end=True)]), monkeypatch)
    assert [one.offset for one in reader.read(0, 0, 3)] == [0]


def test_brokers_that_stay_silent_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(itertools.chain([Got(0)], itertools.repeat(None)), monkeypatch)
    with pytest.raises(BrokerUnreachable):
        list(reader.read(0, 0, 3))


def test_a_role_that_drains_does_not_wait_for_silent_brokers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = threading.Event()
    came = itertools.chain([Got(0)], itertools.repeat(None))
    reader = reader_of(came, monkeypatch, stopping)
    found = reader.read(0, 0, 3)
    assert next(found).offset == 0
    stopping.set()
    with pytest.raises(ReadStopped):
        next(found)


def test_what_the_brokers_have_is_read_also_by_a_role_that_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = threading.Event()
    stopping.set()
    reader = reader_of(iter([Got(0), Got(1), Got(2)]), monkeypatch, stopping)
    assert [one.offset for one in reader.read(0, 0, 3)] == [0, 1, 2]


def test_a_question_that_is_not_answered_ends_with_the_role(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, stopping = SilentClient(), threading.Event()
    monkeypatch.setattr(topic_reader, "Consumer", lambda _config: client)
    reader = TopicReader(KAFKA, REQUESTS, stopping=stopping)
    stopping.set()
    with pytest.raises(ReadStopped):
        reader.bounds()
    client.may_answer.set()
    reader.close()


def test_it_is_never_closed_under_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SilentClient()
    monkeypatch.setattr(topic_reader, "Consumer", lambda _config: client)
    reader = TopicReader(KAFKA, REQUESTS)
    asking = threading.Thread(target=reader.bounds)
    asking.start()
    assert client.asked.wait(PATIENCE_SECONDS)
    reader.close()
    assert not client.closed.is_set()
    client.may_answer.set()
    assert client.closed.wait(PATIENCE_SECONDS)
    asking.join()
    assert not client.closed_while_asked
    with pytest.raises(ReadStopped):
        reader.bounds()


def test_brokers_that_are_not_there_are_said_with_the_reason_of_the_connection(
    dead_address: str,
) -> None:
    kafka = KafkaSettings(bootstrap=(dead_address,), unreachable_seconds_max=1)
    with TopicReader(kafka, REQUESTS) as reader, pytest.raises(BrokerUnreachable) as raised:
        reader.partitions()
    assert f"answers at {dead_address}" in raised.value.what_text
    assert "Connection refused" in raised.value.what_text


def test_all_there_is_and_then_what_comes(kafka: KafkaSettings) -> None:
    def send(*values: bytes) -> None:
        with EnvelopeProducer(kafka) as producer:
            for value in values:
                producer.deliver_blocking(Envelope(CHECKPOINTS, b"1", value))

    with TopicReader(kafka, CHECKPOINTS) as reader:
        assert reader.read_to_end() == []
        send(b"a", b"b")
        assert [one.envelope.value for one in reader.read_to_end()] == [b"a", b"b"]
        send(b"c")
        came: list[bytes] = []
        while not came:
            came += [one.envelope.value for one in reader.poll(1.0)]
        assert came == [b"c"]
        assert [one.envelope.value for one in reader.read(0, 1, 2)] == [b"b"]
    assert reader.poll(1.0) == []
