"""Outages as a client tells them: said once, asked about, and ended by patience alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from infra.kafka.contact import PROBE_SECONDS, Contact
from infra.settings_cluster import KafkaSettings
from schemas.errors import Permanent, Transient
from schemas.errors_kafka import BrokerRefused, BrokerUnreachable, ProducerFailed

KAFKA = KafkaSettings(bootstrap=("kafka-1:9092",), unreachable_seconds_max=10)
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
REFUSED = KafkaError(KafkaError._TRANSPORT, "kafka-1:9092: Connect failed: Connection refused")


class Clock:
    """Time that a test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A client whose brokers answer or not, as the test says."""

    answers = False
    asked = 0

    def list_topics(self, timeout: float) -> object:
        assert timeout == PROBE_SECONDS
        self.asked += 1
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no answer"))
        return object()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lost(clock: Clock) -> Iterator[Contact]:
    """A contact whose client has just lost the brokers."""
    contact = Contact(KAFKA, clock)
    with capture_logs() as lines:
        for error in (REFUSED, DOWN, REFUSED, DOWN):
            contact.on_error(error)
    (line,) = lines
    assert line["event"] == "kafka_unreachable"
    assert line["addresses"] == ["kafka-1:9092"]
    assert "Connection refused" in line["reason"]
    assert line["gives_up_after_seconds"] == 10
    return contact


def test_a_passing_error_is_no_outage(clock: Clock) -> None:
    contact, client = Contact(KAFKA, clock), Client()
    contact.on_error(REFUSED)
    clock.now = 100

    contact.check(client)

    assert not contact.lost
    assert client.asked == 0


def test_brokers_that_come_back_end_the_outage(lost: Contact, clock: Clock) -> None:
    client = Client()
    for clock.now in (1, 3, 3.5, 6):
        lost.check(client)
    assert client.asked == 2
    assert lost.lost

    client.answers, clock.now = True, 9
    with capture_logs() as lines:
        lost.check(client)

    assert [(line["event"], line["after_seconds"]) for line in lines] == [
        ("kafka_reachable_again", 9.0)
    ]
    assert not lost.lost
    clock.now = 1000
    lost.check(client)
    assert client.asked == 3


def test_patience_ends_with_what_was_tried(lost: Contact, clock: Clock) -> None:
    clock.now = 9.9
    lost.check(Client())
    clock.now = 12

    with pytest.raises(BrokerUnreachable) as raised:
        lost.check(Client())

    assert "kafka-1:9092" in raised.value.what_text
    assert "for 12 s" in raised.value.what_text
    assert "Connection refused" in raised.value.what_text
    assert "PLAINTEXT" in raised.value.why_text
    assert isinstance(raised.value, Transient)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._AUTHENTICATION, "SASL failed"), BrokerRefused),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), BrokerRefused),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost", fatal=True), ProducerFailed),
    ],
)
def test_what_no_patience_mends_ends_it_at_once(
    error: KafkaError, expected: type[Permanent | Transient]
) -> None:
    contact = Contact(KAFKA)
    contact.on_error(error)

    with pytest.raises(expected):
        contact.check(Client())
