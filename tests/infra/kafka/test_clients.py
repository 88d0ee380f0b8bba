"""Settings into what librdkafka and Faust take: security is passed on whole."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from faust.types.auth import AuthProtocol, SASLMechanism
from structlog.testing import capture_logs

from infra.kafka.clients import (
    ENVELOPE_OVERHEAD_BYTES,
    client_config,
    consumer_config,
    producer_config,
    warn_if_exposed,
)
from infra.kafka.faust_broker import faust_brokers, faust_credentials
from infra.settings_cluster import KafkaSettings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate signed by itself and its key, under the password ``door``."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=k"),
            *("-keyout", str(key), "-out", str(cert), "-passout", "pass:door"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def scram(**more: Any) -> KafkaSettings:
    return KafkaSettings(
        bootstrap=("b1:9093", "b2:9093"),
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="indexer",
        sasl_password="door",
        **more,
    )


def test_scram_over_tls_reaches_librdkafka(certificate: tuple[Path, Path]) -> None:
    config = producer_config(scram(ssl_ca=certificate[0]))

    assert config["bootstrap.servers"] == "b1:9093,b2:9093"
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("indexer", "door")
    assert config["ssl.ca.location"] == str(certificate[0])
    Producer(config | {"bootstrap.servers": ""})


def test_mutual_tls_reaches_librdkafka(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    config = client_config(
        KafkaSettings(
            security_protocol="SSL",
            ssl_ca=cert,
            ssl_certificate=cert,
            ssl_key=key,
            ssl_key_password="door",
        )
    )

    assert config["ssl.certificate.location"] == str(cert)
    assert config["ssl.key.location"] == str(key)
    assert config["ssl.key.password"] == "door"
    assert not any(name.startswith("sasl") for name in config)
    Producer(config | {"bootstrap.servers": ""})


def test_scram_over_tls_reaches_faust(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    credentials = faust_credentials(
        scram(ssl_ca=cert, ssl_certificate=cert, ssl_key=key, ssl_key_password="door")
    )

    assert faust_brokers(scram()) == ["kafka://b1:9093", "kafka://b2:9093"]
    assert credentials.protocol is AuthProtocol.SASL_SSL
    assert credentials.mechanism is SASLMechanism.SCRAM_SHA_512
    assert (credentials.username, credentials.password) == ("indexer", "door")
    assert credentials.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert credentials.ssl_context.check_hostname


def test_tls_alone_and_plain_text_reach_faust(certificate: tuple[Path, Path]) -> None:
    tls = faust_credentials(KafkaSettings(security_protocol="SSL", ssl_ca=certificate[0]))

    assert tls.protocol is AuthProtocol.SSL
    assert tls.context.cert_store_stats()["x509"] == 1
    assert faust_credentials(KafkaSettings()) is None


def test_a_login_without_encryption_reaches_faust() -> None:
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="a",
        sasl_password="b",
    )

    assert faust_credentials(kafka).protocol is AuthProtocol.SASL_PLAINTEXT
    assert client_config(kafka)["sasl.mechanism"] == "PLAIN"


def test_limits_reach_every_client() -> None:
    kafka = KafkaSettings(message_bytes_max=300 * 1024**2, instance="sink-3", compression="lz4")
    producer, consumer = producer_config(kafka), consumer_config(kafka, "headrace.sink.head")

    wire = 300 * 1024**2 + ENVELOPE_OVERHEAD_BYTES
    assert producer["message.max.bytes"] == wire
    assert producer["queue.buffering.max.kbytes"] * 1024 >= wire
    assert producer["compression.type"] == "lz4"
    assert consumer["fetch.max.bytes"] >= wire
    assert consumer["group.instance.id"] == "headrace.sink.head.sink-3.4"
    assert consumer["enable.auto.commit"] is False
    Producer(producer | {"bootstrap.servers": ""})
    Consumer(consumer | {"bootstrap.servers": ""}).close()


def test_a_reader_may_choose_where_it_begins() -> None:
    config = consumer_config(KafkaSettings(), "g", reset="error", client_id="sink")

    assert config["auto.offset.reset"] == "error"
    assert config["client.id"] == "sink"
    assert "group.instance.id" not in config


def test_only_history_waits_for_more_of_it() -> None:
    fetch = ("fetch.min.bytes", "fetch.wait.max.ms")
    head, history = (consumer_config(KafkaSettings(), "g", together=one) for one in (False, True))

    assert [head[key] for key in fetch] == [1, 500]
    assert [history[key] for key in fetch] == [256 * 1024, 100]


def test_plain_text_beyond_this_machine_is_warned_of() -> None:
    with capture_logs() as lines:
        warn_if_exposed(KafkaSettings(bootstrap=("127.0.0.1:9092", "kafka.example.net:9092")))
        warn_if_exposed(KafkaSettings())
        warn_if_exposed(scram())

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("kafka_not_encrypted", "warning")
    assert line["addresses"] == ["kafka.example.net:9092"]
