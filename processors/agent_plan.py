"""What one worker is to do and how, where it puts what it makes, who counts: declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from processors.fork import ForkLimits
from processors.steps import Step
from schemas.errors import Permanent
from schemas.segments import Envelope, Lane

OnDelivered = Callable[[Envelope, int, int], None]

SHAPE: Mapping[str, Any] = {
    "processing_guarantee": "at_least_once",
    "agent_supervisor": "mode.CrashingSupervisor",
    "stream_wait_empty": True,
    "store": "memory://",
    "key_serializer": "raw",
    "value_serializer": "raw",
    "consumer_auto_offset_reset": "earliest",
    "table_standby_replicas": 0,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "web_enabled": False,
    "autodiscover": False,
    "worker_redirect_stdouts": False,
    # A member is known by its instance, not by where it runs.
    "canonical_url": "http://headrace",
}
"""Options of a `faust.App` that no setting changes: the guarantees rest on them."""


class Outputs(Protocol):
    """Where agents put what they make: `infra.kafka.producer.EnvelopeProducer`."""

    async def put(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        """Send, waiting only for room; `on_delivered` is called on the loop."""
        ...

    async def deliver(self, envelope: Envelope, *, partition: int | None = None) -> tuple[int, int]:
        """Send and wait for the brokers."""
        ...


class KeptMessage(Protocol):
    """A message as it lies in a topic."""

    @property
    def offset(self) -> int:
        """Its offset."""
        ...

    @property
    def envelope(self) -> Envelope:
        """The message."""
        ...


class TopicReading(Protocol):
    """A reader that is in no group; it blocks, for threads: `infra.roles.topic_reader`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exc: object) -> None: ...

    def bounds(self, partition: int = 0) -> tuple[int, int]:
        """The first offset that is kept, and the next one to be written."""
        ...

    def read(self, partition: int, from_offset: int, to_offset: int) -> Iterator[KeptMessage]:
        """The messages that are kept of ``[from_offset, to_offset)``, oldest first."""
        ...


class Tally(Protocol):
    """Who counts what the agents did: the metrics of the role."""

    def derived(self, agent: str, blocks: int, rows: int) -> None:
        """The brokers have what was derived of a message of so many blocks and rows."""
        ...

    def refused(self, agent: str, error: Permanent) -> None:
        """A message went to ``dead_letters``."""
        ...


@dataclass(frozen=True, slots=True)
class Fetching:
    """When brokers answer a fetch."""

    bytes_min: int = 1
    """Once they have so much."""
    seconds_max: float = 1.5
    """Or have waited so long for it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker does."""

    lane: Lane
    """The lane."""
    prefix: str
    """Of topics and groups."""
    steps: tuple[Step, ...]
    """The agents that derive streams."""
    reorg: bool
    """Whether it runs the reorg agent, too."""
    limits: ForkLimits
    """Of the fork states."""
    reader: Callable[[str], TopicReading]
    """Opens a reader of a topic, named without the prefix."""
    fetching: Fetching = Fetching()
    """How it reads."""
    accept_lost: bool = False
    """Go on after messages that retention dropped."""
    rebuild_forks: bool = False
    """Give up the stored fork states, to make them anew."""

    @property
    def app_id(self) -> str:
        """The name of the Faust app, which is its consumer group."""
        return f"{self.prefix}process.{self.lane}"
