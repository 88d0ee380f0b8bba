"""Segments that seem to be missing in, those that are truly not on their way any more out.

A segment that the ledger lacks may still lie in a topic, unread or undecoded. It is missing only
once every group on its way has read what was there when it was first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.kafka.clients import reader_config
from infra.roles.sink import sink_group
from infra.settings_cluster import KafkaSettings
from schemas.chains import ChainFacts
from schemas.segments import Lane, Stream, data_topic
from schemas.topics import partition_of, topic_name
from sinks.canon_row import Missing

ASK_SECONDS = 10.0
"""How long the brokers may take to answer."""

Position = tuple[str, str, int]
"""(group, topic without the prefix, partition)."""


@dataclass(slots=True)
class Trail:
    """How far the way of one missing segment was followed."""

    steps: list[Position]
    """What is still to be read, in order: who reads which partition."""
    until: int | None = None
    """The offset that the first of them must have reached; None before it was looked up."""


@dataclass(slots=True)
class InFlight:
    """Follows missing segments through the topics.

    Parameters
    ----------
    facts, chain_id
        The chain.
    prefix
        Of groups.
    partitions
        Partitions of each topic, by its name without the prefix.
    end_of, committed
        Where the partition of a position ends, and what its group has committed of it; None where
        the brokers do not say.
    """

    facts: ChainFacts
    chain_id: int
    prefix: str
    partitions: Mapping[str, int]
    end_of: Callable[[Position], int | None]
    committed: Callable[[Position], int | None]
    _trails: dict[Missing, Trail] = field(default_factory=dict)

    @property
    def following(self) -> bool:
        """Whether there is anything to ask the brokers for."""
        return bool(self._trails)

    def add(self, missing: Missing) -> None:
        """Follow a segment from now on, unless it is followed already."""
        self._trails.setdefault(missing, Trail(self._steps(missing)))

    def forget_up_to(self, number: int) -> None:
        """Blocks up to `number` are visible: nothing of them is missing any more."""
        for missing in [one for one in self._trails if one.to_block <= number]:
            del self._trails[missing]

    def take_lost(self) -> list[Missing]:
        """The segments that nobody is about to load, each once; asks the brokers."""
        lost = [missing for missing, trail in self._trails.items() if self._followed(trail)]
        for missing in lost:
            del self._trails[missing]
        return lost

    def _followed(self, trail: Trail) -> bool:
        while trail.steps:
            position = trail.steps[0]
            if trail.until is None:
                trail.until = self.end_of(position)
            # What is not known for now is not known to be lost either.
            if trail.until is None or (read := self.committed(position)) is None:
                return False
            if read < trail.until:
                return False
            trail.steps.pop(0)
            trail.until = None
        return True

    def _steps(self, missing: Missing) -> list[Position]:
        size = self.facts.segment_blocks
        whole = missing.to_block - missing.from_block + 1 == size
        lane: Lane = "history" if whole and missing.from_block % size == 0 else "head"
        process = f"{self.prefix}process.{lane}"
        way: dict[str, list[tuple[str, Stream]]] = {
            "blocks": [],
            "logs": [],
            "events": [(process, "logs")],
            "aggregates": [(process, "logs"), (process, "events")],
        }
        last: Stream = missing.stream  # type: ignore[assignment]
        key = f"{self.chain_id}:{missing.from_block // size}".encode()
        steps = []
        for group, stream in [*way[missing.stream], (sink_group(self.prefix, lane), last)]:
            topic = data_topic(stream, lane)
            steps.append((group, topic, partition_of(key, self.partitions[topic])))
        return steps


class Brokers:
    """Ends of topics and offsets of groups, as the brokers have them; for one thread at a time.

    Not by an admin client: librdkafka's crashes the process where the coordinator is not to be had
    at once. A consumer that subscribes to nothing joins no group; each group has one here, which
    is kept for the next question.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._askers: dict[str, Any] = {}

    def end_of(self, position: Position) -> int | None:
        """The next offset to be written."""
        asker, part = self._asker(position)
        try:
            return int(asker.get_watermark_offsets(part, timeout=ASK_SECONDS)[1])
        except KafkaException:
            return None

    def committed(self, position: Position) -> int | None:
        """The offset that a group goes on from; 0 where it has committed none."""
        asker, part = self._asker(position)
        try:
            (found,) = asker.committed([part], timeout=ASK_SECONDS)
        except KafkaException:
            return None
        return max(0, int(found.offset))

    def _asker(self, position: Position) -> tuple[Any, TopicPartition]:
        group, topic, partition = position
        asker = self._askers.get(group)
        if asker is None:
            config = reader_config(self._kafka, group, client_id="headrace-publish")
            asker = self._askers[group] = Consumer(config)
        return asker, TopicPartition(topic_name(self._kafka.topic_prefix, topic), partition)
