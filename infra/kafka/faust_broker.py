"""KafkaSettings in, the broker URLs and credentials of a Faust app out."""

from __future__ import annotations

import ssl
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from infra.settings_cluster import KafkaSettings


def faust_brokers(kafka: KafkaSettings) -> list[str]:
    """The brokers as the option `broker` of a Faust app takes them."""
    return [f"kafka://{address}" for address in kafka.bootstrap]


def faust_credentials(kafka: KafkaSettings) -> Any:
    """What the option `broker_credentials` of a Faust app takes; None in plain text."""
    context = _ssl_context(kafka) if kafka.encrypted else None
    if kafka.sasl and kafka.sasl_password is not None:
        return SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(kafka.ssl_ca) if kafka.ssl_ca else None)
    if kafka.ssl_certificate is not None:
        password = kafka.ssl_key_password
        context.load_cert_chain(
            kafka.ssl_certificate,
            kafka.ssl_key,
            password.get_secret_value() if password is not None else None,
        )
    return context
