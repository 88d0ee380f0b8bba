"""Errors of a Kafka client in; one log line an outage, and a coded error when it lasts, out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from infra.settings_cluster import KafkaSettings
from schemas.errors import HeadraceError
from schemas.errors_kafka import BrokerRefused, BrokerUnreachable, ProducerFailed

log = structlog.get_logger(__name__)

PROBE_SECONDS = 2.0
"""How often brokers that were lost are asked for, and how long each time."""

REFUSALS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""Codes of brokers that answer, and will not have us."""


def refused(kafka: KafkaSettings, reason: str) -> BrokerRefused:
    """The error for brokers that would not let us in."""
    return BrokerRefused(
        addresses=", ".join(kafka.bootstrap), reason=reason, prefix=kafka.topic_prefix or "anything"
    )


class Contact:
    """Whether the brokers answer, as the errors of one client and own questions tell.

    librdkafka says when it lost the brokers and not when it found them again; so once they are
    said to be lost `check` asks until they answer, or until the settings' patience is over.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka
        self._clock = clock
        self._lock = threading.Lock()
        self._lost_at: float | None = None
        self._probed_at = 0.0
        self._reason = ""
        self._failure: HeadraceError | None = None

    @property
    def lost(self) -> bool:
        """Whether the brokers are thought to be out of reach."""
        return self._lost_at is not None

    @property
    def reason(self) -> str:
        """What the client said last."""
        return self._reason

    def raise_failure(self) -> None:
        """Raise what ended the contact, if anything did."""
        if self._failure is not None:
            raise self._failure

    def on_error(self, error: KafkaError) -> None:
        """The client's `error_cb`: remember what it says."""
        if error.code() in REFUSALS:
            self._failure = refused(self._kafka, error.str())
        elif error.fatal():
            self._failure = ProducerFailed(reason=error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.lose(self._reason or error.str())
        else:
            self._reason = error.str()

    def lose(self, reason: str) -> None:
        """Take the brokers for lost from now on, if they are not already."""
        with self._lock:
            self._reason = reason
            if self._lost_at is not None:
                return
            self._lost_at = self._probed_at = self._clock()
        log.warning(
            "kafka_unreachable",
            addresses=list(self._kafka.bootstrap),
            reason=reason,
            gives_up_after_seconds=self._kafka.unreachable_seconds_max,
        )

    def check(self, client: Any) -> None:
        """Raise what ended the contact; ask the brokers, where they are thought lost.

        Parameters
        ----------
        client
            The producer, consumer or admin client: its `list_topics` is the question.

        Raises
        ------
        BrokerUnreachable
            If they have not answered for `unreachable_seconds_max`.
        BrokerRefused, ProducerFailed
        """
        self.raise_failure()
        now = self._clock()
        if self._lost_at is None or now - self._probed_at < PROBE_SECONDS:
            return
        self._probed_at = now
        try:
            client.list_topics(timeout=PROBE_SECONDS)
        except KafkaException as error:
            self._still_lost(error.args[0].str())
        else:
            with self._lock:
                seconds, self._lost_at = self._clock() - self._lost_at, None
            log.info("kafka_reachable_again", after_seconds=round(seconds, 1))

    def _still_lost(self, reason: str) -> None:
        assert self._lost_at is not None
        seconds = self._clock() - self._lost_at
        if seconds >= self._kafka.unreachable_seconds_max:
            raise unreachable(self._kafka, seconds, self._reason or reason)


def unreachable(kafka: KafkaSettings, seconds: float, reason: str) -> BrokerUnreachable:
    """The error for brokers that did not answer."""
    return BrokerUnreachable(
        addresses=", ".join(kafka.bootstrap),
        tried="connected and asked for metadata again and again",
        seconds=seconds,
        reason=reason,
        protocol=kafka.security_protocol,
    )
