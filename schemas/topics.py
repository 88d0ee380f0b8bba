"""Declarations of what travels through Kafka in; topics, their partitions and retention out.

Names stand here without the prefix of the settings, as an `Envelope` names them; `topic_name` puts
it before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.segments import (
    CHECKPOINTS,
    DATA_TOPICS,
    DEAD_LETTERS,
    FORKS,
    RAW_HEADS,
    REQUESTS,
    SEGMENT_MESSAGES,
    data_topic,
)

CLAIMS = "claims"
FORK_STATE = "process.head-fork_state-changelog"
"""Faust's own name for the changelog of the table `fork_state` of the app `process.head`."""

Retention = Literal["segments", "control", "newest", "letters"]
"""What of a topic is kept:

``segments``  as many bytes and hours as the settings say: ClickHouse holds the rest;
``control``   small messages, by hours alone and no less than 30 days;
``newest``    compacted: the newest message of each key, for ever;
``letters``   by bytes alone: until somebody looks at them.
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """One declared topic."""

    name: str
    """Its name, without the prefix."""
    messages: tuple[str, ...]
    """The Avro schemas of its messages; empty where they are private to one role."""
    key: str
    """What its keys hold."""
    partitioned: bool
    """Whether it has as many partitions as the settings say; else it has one."""
    retention: Retention
    """What is kept."""
    doc: str
    """What it is for."""

    def partitions(self, partitions: int) -> int:
        """How many partitions it has where a topic of segments has `partitions`."""
        return partitions if self.partitioned else 1


def _segment_topics() -> tuple[Topic, ...]:
    doc = {
        "blocks": "blocks, transactions with receipts, withdrawals",
        "logs": "header references, logs, what was proven",
        "events": "one block of columns per event table, also where it is empty",
        "aggregates": "partial sums per block of each aggregate table",
    }
    lanes: tuple[Literal["history", "head"], ...] = ("history", "head")
    return tuple(
        Topic(
            data_topic(stream, lane),
            (SEGMENT_MESSAGES[stream],),
            "chain_id:segment number",
            partitioned=True,
            retention="segments",
            doc=doc[stream],
        )
        for stream in DATA_TOPICS
        for lane in lanes
    )


TOPICS: tuple[Topic, ...] = (
    *_segment_topics(),
    Topic(
        RAW_HEADS,
        ("HeadObserved", "FinalityAdvanced"),
        "chain_id",
        partitioned=False,
        retention="control",
        doc="headers as nodes showed them, ancestors first, and what became final",
    ),
    Topic(
        FORKS,
        ("ForkUpdate",),
        "chain_id",
        partitioned=False,
        retention="control",
        doc="head, safe, finalized, blocks removed and added",
    ),
    Topic(
        CLAIMS,
        ("PublisherClaim",),
        "chain_id",
        partitioned=False,
        retention="control",
        doc="claims and signs of life of publishers: a claim's offset makes its generation",
    ),
    Topic(
        REQUESTS,
        ("SegmentWanted",),
        "chain_id",
        partitioned=False,
        retention="control",
        doc="segments that are wanted once more",
    ),
    Topic(
        CHECKPOINTS,
        ("IngestCheckpoint",),
        "chain_id:content version",
        partitioned=False,
        retention="newest",
        doc="what the brokers have acknowledged of each chain",
    ),
    Topic(
        FORK_STATE,
        (),
        "chain_id",
        partitioned=False,
        retention="newest",
        doc="the reorg agent's state, to go on from",
    ),
    Topic(
        DEAD_LETTERS,
        ("DeadLetter",),
        "as its source",
        partitioned=True,
        retention="letters",
        doc="messages that were refused, with the reason",
    ),
)
"""Every topic."""


def topics_by_name() -> Mapping[str, Topic]:
    """Every topic by its name without the prefix."""
    return {topic.name: topic for topic in TOPICS}


def topic_name(prefix: str, name: str) -> str:
    """A topic's name on the brokers."""
    return f"{prefix}{name}"


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a message: neighbouring segments of a chain lie in neighbouring ones.

    Parameters
    ----------
    key
        ``chain_id:segment number`` of a segment, ``chain_id`` of anything else.
    partitions
        How many the topic has.

    Raises
    ------
    ValueError
        If the key is of neither form; a message with another key names its partition itself.
    """
    if partitions == 1:
        return 0
    return sum(int(part) for part in key.split(b":")) % partitions
