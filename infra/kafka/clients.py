"""KafkaSettings in, configurations of librdkafka's producers, consumers and admin clients out."""

from __future__ import annotations

from typing import Any, Literal

import structlog

from infra.settings_cluster import KafkaSettings

log = structlog.get_logger(__name__)

ENVELOPE_OVERHEAD_BYTES = 64 * 1024
"""Room for key, headers and framing above a message's own bytes."""
PREFETCH_BYTES_MAX = 64 * 1024 * 1024
"""What a consumer fetches ahead, over all its partitions, beyond one message of the largest."""
IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024
"""What a producer holds that no broker has acknowledged."""
SOCKET_TIMEOUT_MS, RECONNECT_MS_MAX = 10_000, 1_000

FETCH_TOGETHER = 256 * 1024, 0.1
"""Bytes and seconds of messages of history that brokers gather for an answer: each fetch has its
price, on both sides."""
METADATA_SECONDS_MAX = 10
"""How long partitions that were added to a topic may stay unread."""

Config = dict[str, Any]


def wire_bytes_max(kafka: KafkaSettings) -> int:
    """Bytes of a message with its key and headers, at most: `max.message.bytes` of our topics."""
    return kafka.message_bytes_max + ENVELOPE_OVERHEAD_BYTES


def client_config(kafka: KafkaSettings, client_id: str = "headrace") -> Config:
    """What every client needs: where the brokers are and how to be let in.

    librdkafka's own lines on standard error are switched off: errors come by `error_cb`, and
    `infra.kafka.contact` says them once.
    """
    config: Config = {
        "bootstrap.servers": ",".join(kafka.bootstrap),
        "client.id": client_id,
        "security.protocol": kafka.security_protocol,
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        "log_level": 0,
    }
    if kafka.sasl and kafka.sasl_password is not None:
        config["sasl.mechanism"] = kafka.sasl_mechanism
        config["sasl.username"] = kafka.sasl_username
        config["sasl.password"] = kafka.sasl_password.get_secret_value()
    if kafka.ssl_ca is not None:
        config["ssl.ca.location"] = str(kafka.ssl_ca)
    if kafka.ssl_certificate is not None and kafka.ssl_key is not None:
        config["ssl.certificate.location"] = str(kafka.ssl_certificate)
        config["ssl.key.location"] = str(kafka.ssl_key)
    if kafka.ssl_key_password is not None:
        config["ssl.key.password"] = kafka.ssl_key_password.get_secret_value()
    return config


def producer_config(kafka: KafkaSettings, client_id: str = "headrace") -> Config:
    """An idempotent producer: each message once and in order per partition, while it lives."""
    compression: Config = {"compression.type": kafka.compression}
    if kafka.compression == "zstd":
        compression["compression.level"] = 1
    return client_config(kafka, client_id) | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
        "message.max.bytes": wire_bytes_max(kafka),
        "message.timeout.ms": int(kafka.unreachable_seconds_max * 1000),
        # The producer's own bound is by bytes in flight; the queue only has to hold that much.
        "queue.buffering.max.kbytes": 2 * (IN_FLIGHT_BYTES_MAX + wire_bytes_max(kafka)) // 1024,
        "queue.buffering.max.messages": 1_000_000,
        **compression,
    }


def consumer_config(
    kafka: KafkaSettings,
    group: str,
    *,
    reset: Literal["earliest", "latest", "error"] = "earliest",
    client_id: str = "headrace",
    together: bool = False,
) -> Config:
    """A consumer that commits nothing by itself.

    Parameters
    ----------
    kafka
        The settings.
    group
        Name of the consumer group, prefix included.
    reset
        Where to begin without a committed offset, or with one that is no longer kept.
    client_id
        How the brokers' logs name it.
    together
        Whether brokers may hold messages back until there are more of them.
    """
    fetch_bytes, fetch_seconds = FETCH_TOGETHER if together else (1, 0.5)
    config = client_config(kafka, client_id) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": reset,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(kafka.session_timeout_seconds * 1000),
        "heartbeat.interval.ms": int(kafka.session_timeout_seconds * 1000 / 5),
        "max.poll.interval.ms": int(
            1000 * max(kafka.poll_interval_seconds_max, kafka.session_timeout_seconds)
        ),
        # Partitions that are added while it runs are found so.
        "topic.metadata.refresh.interval.ms": METADATA_SECONDS_MAX * 1000,
        "message.max.bytes": wire_bytes_max(kafka),
        "fetch.min.bytes": fetch_bytes,
        "fetch.wait.max.ms": int(1000 * fetch_seconds),
        "fetch.max.bytes": max(PREFETCH_BYTES_MAX, wire_bytes_max(kafka)),
        "receive.message.max.bytes": max(PREFETCH_BYTES_MAX, wire_bytes_max(kafka)) + 1024**2,
        "queued.max.messages.kbytes": PREFETCH_BYTES_MAX // 1024,
    }
    if (member := kafka.member(group)) is not None:
        config["group.instance.id"] = member
    return config


def reader_config(kafka: KafkaSettings, group: str, *, client_id: str = "headrace") -> Config:
    """A consumer that joins no group: it assigns its partitions itself, or only asks."""
    config = consumer_config(kafka, group, client_id=client_id)
    # Not the member that this worker is: the brokers would take one for the other.
    config.pop("group.instance.id", None)
    return config


def warn_if_exposed(kafka: KafkaSettings) -> None:
    """Log a warning where messages would leave this machine unencrypted."""
    if kafka.exposed:
        log.warning(
            "kafka_not_encrypted",
            addresses=list(kafka.exposed),
            security_protocol=kafka.security_protocol,
            fix="set security_protocol = 'SASL_SSL' or 'SSL' in [kafka], or keep the network apart",
        )
