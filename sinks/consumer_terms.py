"""What bounds the loop of a sink, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Pace and bounds of the loop."""

    poll_seconds: float = 0.1
    """How long one poll waits for a message."""
    messages_max: int = 32
    """Messages of one turn."""
    commit_seconds: float = 1.0
    """How often offsets are committed."""
    quiet_seconds_min: float = 0.25
    """After a flood of messages, what waits in a batch is written once none came for so long."""
    quiet_seconds_max: float = 1.0
    """The same, whatever came before."""
    patience_seconds: float = 600.0
    """How long ClickHouse may not answer before the loop ends."""
    pause_seconds_max: float = 5.0
    """Longest wait between two attempts to write."""
    accept_lost: bool = False
    """Go on at the oldest message that is kept where older ones are gone, instead of ending."""


class Watch(Protocol):
    """What the loop tells about itself; each call is short."""

    def turn(self) -> None:
        """The loop went round."""

    def ready(self, condition: str, met: bool, note: str = "") -> None:
        """A condition, ``kafka`` or ``clickhouse``, is met or not."""

    def lag(self, messages: Mapping[tuple[str, int], int]) -> None:
        """Messages of each (topic, partition) that are not taken yet."""
