"""A publisher that takes long to take up what is there keeps its claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from infra.clickhouse.server import EmbeddedServer
from infra.roles.publish import PublishRole
from infra.settings_cluster import KafkaSettings
from schemas.codec import decode_publisher_claim
from schemas.topics import CLAIMS
from sinks.publisher import Publisher
from tests.infra.roles.kafka_reader import read_topic
from tests.infra.roles.sink_rig import Stored, prepared, start, until


@pytest.fixture
def stored(kafka: KafkaSettings, clickhouse_server: EmbeddedServer) -> Iterator[Stored]:
    with prepared(kafka, clickhouse_server) as stored:
        yield stored


def said(kafka: KafkaSettings) -> list[str]:
    """Every publisher's words, in order."""
    return [decode_publisher_claim(one.value).kind for one in read_topic(kafka, CLAIMS)]


def test_a_long_claim_is_not_silent(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    claim: Callable[[Publisher, int | None], int] = Publisher.claim
    beats: list[int] = []

    def long_claim(publisher: Publisher, generation: int | None = None) -> int:
        until(lambda: said(stored.kafka).count("beat") >= 2, "it is silent")
        beats.append(said(stored.kafka).count("beat"))
        return claim(publisher, generation)

    monkeypatch.setattr(Publisher, "claim", long_claim)
    running = start(
        "publish", stored.settings, lambda run: PublishRole(run, stored.settings).work()
    )
    until(lambda: beats or running.failure, "it never claimed")
    running.end()

    assert said(stored.kafka)[0] == "claim"
    assert said(stored.kafka)[-1] == "release"
