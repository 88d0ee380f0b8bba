"""Fixtures: one real Kafka broker for the whole session, topics of its own for each test.

The broker runs in a container where Docker answers, else as Java's own process from the files that
Maven fetches, else the test is skipped with the reason; ``HEADRACE_REQUIRE_KAFKA=1`` makes that a
failure. Which one it was is printed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testcontainers.community.kafka import KafkaContainer

from infra.kafka.admin import create_topics
from infra.kafka.broker import LocalBroker
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import BrokerFilesMissing, JavaMissing
from tests.patience import PATIENCE_SECONDS

IMAGE = "confluentinc/cp-kafka:7.6.0"
DOCKER_SECONDS_MAX = 20


@pytest.fixture(scope="session")
def kafka_bootstrap(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The address of a running broker, shared by all tests: never stop or restart it."""
    captured = request.config.pluginmanager.getplugin("capturemanager")
    with _broker(tmp_path_factory) as (kind, bootstrap):
        with captured.global_and_fixture_disabled():
            print(f"\nkafka for tests: {kind}, {bootstrap}")
        yield bootstrap


@pytest.fixture
def kafka_settings(kafka_bootstrap: str) -> KafkaSettings:
    """Settings with a prefix of this test's own; no topic is there yet."""
    return KafkaSettings(
        bootstrap=(kafka_bootstrap,),
        topic_prefix=f"t{secrets.token_hex(6)}.",
        session_timeout_seconds=6,
        unreachable_seconds_max=PATIENCE_SECONDS,
    )


@pytest.fixture
def kafka(kafka_settings: KafkaSettings) -> KafkaSettings:
    """Settings with a prefix of this test's own; every declared topic is made."""
    create_topics(kafka_settings)
    return kafka_settings


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address that refuses connections: it is held, so that nobody listens there meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def require_kafka() -> None:
    """Skip, or fail where CI says so, on a machine that can run no broker."""
    try:
        LocalBroker.check()
    except (JavaMissing, BrokerFilesMissing) as error:
        _refuse(f"{error} ({error.fix_text})")


def _refuse(reason: str) -> None:
    if os.environ.get("HEADRACE_REQUIRE_KAFKA") == "1":
        pytest.fail(f"a Kafka broker is required here: {reason}", pytrace=False)
    pytest.skip(f"no Kafka broker: {reason}")


@contextmanager
def _broker(folders: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    if _docker_answers():
        container = KafkaContainer(IMAGE).with_kraft()
        container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        with container as running:
            yield f"a container of {IMAGE}", running.get_bootstrap_server()
        return
    require_kafka()
    with LocalBroker(folders.mktemp("kafka")) as broker:
        yield "a process of Java, its files from Maven", broker.bootstrap


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        done = subprocess.run(
            [docker, "info"], capture_output=True, timeout=DOCKER_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
