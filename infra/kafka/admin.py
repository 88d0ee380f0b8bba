"""Declared topics in; topics on the brokers out, made, changed, compared and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs export few names
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from infra.kafka.clients import client_config, wire_bytes_max
from infra.kafka.contact import REFUSALS, Contact, refused, unreachable
from infra.settings_cluster import KafkaSettings
from schemas.errors import HeadraceError
from schemas.errors_kafka import (
    MessageLimitTooSmall,
    PartitionsNotFewer,
    PartitionsTooFew,
    TopicsMissing,
    TopicsRefused,
)
from schemas.topics import TOPICS, Topic, topic_name, topics_by_name

log = structlog.get_logger(__name__)

REQUEST_SECONDS_MAX = 30.0
ASK_SECONDS = 2.0
APPEAR_SECONDS = 2.0
"""How long a topic made a moment ago may take to show in a broker's metadata."""
CONTROL_HOURS_MIN = 30 * 24
MESSAGE_LIMIT = "max.message.bytes"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A declared topic as the brokers have it."""

    topic: Topic
    """Its declaration."""
    name: str
    """Its name on the brokers."""
    partitions: int | None
    """How many it has; None where it does not exist."""
    replicas: int | None
    """Brokers that keep its first partition."""
    partitions_declared: int
    """How many it shall have, at least."""
    config: Mapping[str, str]
    """What it has of the declared configuration."""
    config_declared: Mapping[str, str]
    """What it shall have."""

    @property
    def differences(self) -> tuple[str, ...]:
        """What `headrace topics create` or `alter` would change, in words."""
        if self.partitions is None:
            return ("does not exist",)
        found = []
        if self.partitions < self.partitions_declared:
            found.append(f"{self.partitions} partitions instead of {self.partitions_declared}")
        found += [
            f"{key} is {self.config.get(key)} instead of {value}"
            for key, value in self.config_declared.items()
            if self.config.get(key) != value
        ]
        return tuple(found)


def topic_config(topic: Topic, kafka: KafkaSettings) -> dict[str, str]:
    """The configuration of a topic: what is kept, and how large a message may be."""
    wire = wire_bytes_max(kafka)
    hours_ms = int(kafka.retention_hours * 3_600_000)
    # Kafka drops whole log files: several of them make up what is kept.
    file_bytes = min(max(2 * wire, kafka.retention_bytes // 8), 1024**3)
    kept = {
        "segments": {
            "cleanup.policy": "delete",
            "retention.ms": str(hours_ms),
            "retention.bytes": str(kafka.retention_bytes),
            "segment.bytes": str(file_bytes),
        },
        "control": {
            "cleanup.policy": "delete",
            "retention.ms": str(max(hours_ms, CONTROL_HOURS_MIN * 3_600_000)),
            "retention.bytes": "-1",
        },
        "newest": {
            "cleanup.policy": "compact",
            # The newest file is never compacted: small and young ones keep the topic short.
            "segment.bytes": str(2 * wire),
            "segment.ms": "3600000",
        },
        "letters": {
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "retention.bytes": str(kafka.retention_bytes),
            "segment.bytes": str(file_bytes),
        },
    }
    return {MESSAGE_LIMIT: str(wire), **kept[topic.retention]}


def connect(kafka: KafkaSettings, client_id: str = "headrace") -> Any:
    """An admin client of brokers that answer.

    Raises
    ------
    BrokerUnreachable
        After `unreachable_seconds_max` without an answer.
    BrokerRefused
    """
    contact = Contact(kafka)
    admin: Any = AdminClient(client_config(kafka, client_id) | {"error_cb": contact.on_error})
    start = time.monotonic()
    while True:
        try:
            if admin.list_topics(timeout=ASK_SECONDS).brokers:
                return admin
            reason = "they know of no broker"
        except KafkaException as error:
            if error.args[0].code() in REFUSALS:
                raise refused(kafka, error.args[0].str()) from error
            admin.poll(0)
            reason = contact.reason or error.args[0].str()
        contact.raise_failure()
        contact.lose(reason)
        seconds = time.monotonic() - start
        if seconds >= kafka.unreachable_seconds_max:
            raise unreachable(kafka, seconds, reason)


def create_topics(kafka: KafkaSettings, admin: Any = None) -> list[str]:
    """Make the declared topics that are not there; returns their names.

    Raises
    ------
    TopicsRefused, BrokerUnreachable, BrokerRefused
    """
    admin = admin or connect(kafka)
    wanted = {topic_name(kafka.topic_prefix, topic.name): topic for topic in TOPICS}
    missing = {
        name: topic
        for name, topic in wanted.items()
        if name not in admin.list_topics(timeout=REQUEST_SECONDS_MAX).topics
    }
    if not missing:
        return []
    asked = admin.create_topics(
        [
            NewTopic(
                name,
                topic.partitions(kafka.partitions),
                kafka.replication_factor,
                config=topic_config(topic, kafka),
            )
            for name, topic in missing.items()
        ],
        operation_timeout=REQUEST_SECONDS_MAX,
        request_timeout=2 * REQUEST_SECONDS_MAX,
    )
    made = []
    for name, future in asked.items():
        # Another process that makes them at this moment is as good.
        if _done(kafka, "make", name, future, spare=KafkaError.TOPIC_ALREADY_EXISTS):
            made.append(name)
    _await(lambda: _there(admin, wanted), APPEAR_SECONDS)
    return made


def alter_topics(kafka: KafkaSettings, admin: Any = None) -> list[TopicState]:
    """Bring the topics that are there to their declaration; returns those that differed.

    Raises
    ------
    PartitionsNotFewer
        Before anything is changed.
    TopicsRefused, BrokerUnreachable, BrokerRefused
    """
    admin = admin or connect(kafka)
    states = [state for state in describe_topics(kafka, admin) if state.partitions is not None]
    for state in states:
        assert state.partitions is not None
        if state.partitions > state.partitions_declared:
            raise PartitionsNotFewer(
                topic=state.name, found=state.partitions, declared=state.partitions_declared
            )
    differing = [state for state in states if state.differences]
    for state in differing:
        changes = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in state.config_declared.items()
            if state.config.get(key) != value
        ]
        if changes:
            resource = ConfigResource(ResourceType.TOPIC, state.name, incremental_configs=changes)
            asked = admin.incremental_alter_configs([resource], request_timeout=REQUEST_SECONDS_MAX)
            _done(kafka, "change", state.name, asked[resource])
        if state.partitions is not None and state.partitions < state.partitions_declared:
            more = NewPartitions(state.name, state.partitions_declared)
            asked = admin.create_partitions([more], request_timeout=REQUEST_SECONDS_MAX)
            _done(kafka, "add partitions to", state.name, asked[state.name])
    altered = [state.topic for state in differing]
    _await(
        lambda: not any(state.differences for state in describe_topics(kafka, admin, altered)),
        REQUEST_SECONDS_MAX,
    )
    return differing


def describe_topics(
    kafka: KafkaSettings, admin: Any = None, topics: Iterable[Topic] = TOPICS
) -> list[TopicState]:
    """Declared topics as the brokers have them.

    Raises
    ------
    TopicsRefused, BrokerUnreachable, BrokerRefused
    """
    admin = admin or connect(kafka)
    held = admin.list_topics(timeout=REQUEST_SECONDS_MAX).topics
    named = {topic_name(kafka.topic_prefix, topic.name): topic for topic in topics}
    configs = _configs(kafka, admin, [name for name in named if name in held])
    states = []
    for name, topic in named.items():
        declared = topic_config(topic, kafka)
        found = held.get(name)
        config = configs.get(name, {})
        states.append(
            TopicState(
                topic,
                name,
                len(found.partitions) if found is not None else None,
                len(found.partitions[0].replicas) if found is not None else None,
                topic.partitions(kafka.partitions),
                {key: config[key] for key in declared if key in config},
                declared,
            )
        )
    return states


def check_topics(
    kafka: KafkaSettings, names: Iterable[str] | None = None, admin: Any = None
) -> dict[str, int]:
    """What a role asks when it starts: are its topics there and large enough?

    Parameters
    ----------
    kafka
        The settings.
    names
        Topics without the prefix; None takes every one.
    admin
        A connected client, if there is one.

    Returns
    -------
    dict of str to int
        Partitions of each topic, by its name without the prefix.

    Raises
    ------
    TopicsMissing, PartitionsTooFew, MessageLimitTooSmall, BrokerUnreachable, BrokerRefused
    """
    admin = admin or connect(kafka)
    declared = topics_by_name()
    topics = list(TOPICS) if names is None else [declared[name] for name in names]
    wanted = [topic_name(kafka.topic_prefix, topic.name) for topic in topics]
    _await(lambda: _there(admin, wanted), APPEAR_SECONDS)
    states = describe_topics(kafka, admin, topics)
    missing = [state.name for state in states if state.partitions is None]
    if missing:
        raise TopicsMissing(topics=", ".join(missing))
    found = {}
    for state in states:
        assert state.partitions is not None
        if state.partitions < state.partitions_declared:
            raise PartitionsTooFew(
                topic=state.name, found=state.partitions, declared=state.partitions_declared
            )
        limit = int(state.config[MESSAGE_LIMIT])
        if limit < wire_bytes_max(kafka):
            raise MessageLimitTooSmall(
                topic=state.name, found=limit, declared=wire_bytes_max(kafka)
            )
        found[state.topic.name] = state.partitions
    return found


def _await(shown: Callable[[], bool], seconds: float) -> None:
    """Wait for what was changed to show; whether it did is for the caller to see."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not shown():
        time.sleep(0.1)


def _there(admin: Any, names: Iterable[str]) -> bool:
    return set(names) <= set(admin.list_topics(timeout=REQUEST_SECONDS_MAX).topics)


def _configs(kafka: KafkaSettings, admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    asked = admin.describe_configs(resources, request_timeout=REQUEST_SECONDS_MAX)
    found = {}
    for resource, future in asked.items():
        entries = _done(kafka, "describe", resource.name, future) or {}
        found[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
    return found


def _done(
    kafka: KafkaSettings, action: str, name: str, future: Any, spare: int | None = None
) -> Any:
    """What a request came to; None for the error that is spared."""
    try:
        return future.result() or True
    except KafkaException as raised:
        error: KafkaError = raised.args[0]
        if error.code() == spare:
            return None
        raise _named(kafka, action, name, error) from raised


def _named(kafka: KafkaSettings, action: str, name: str, error: KafkaError) -> HeadraceError:
    if error.code() in REFUSALS:
        return refused(kafka, error.str())
    if error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
        return unreachable(kafka, REQUEST_SECONDS_MAX, error.str())
    return TopicsRefused(action=action, topic=name, reason=error.str())
