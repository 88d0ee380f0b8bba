"""Messages taken and made durable in, the offsets that may be committed out. No IO.

A partition's messages are taken in order and become durable in any order: batches mix partitions.
What may be committed of a partition is the lowest offset that is not durable yet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message came from."""

    topic: str
    """Name of the topic, as on the brokers."""
    partition: int
    """The partition."""
    offset: int
    """The offset."""
    assignment: int
    """Which assignment of the partition it was taken under; an earlier one counts no more."""


@dataclass(slots=True)
class _Partition:
    assignment: int
    next_offset: int
    """Of the message that is taken next, as far as is known."""
    committed: int | None = None
    waiting: deque[int] = field(default_factory=deque)
    durable: set[int] = field(default_factory=set)

    @property
    def committable(self) -> int:
        return self.waiting[0] if self.waiting else self.next_offset


class Offsets:
    """The offsets of the partitions that are assigned."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._assignments = 0

    @property
    def assigned(self) -> list[tuple[str, int]]:
        """(topic, partition) of every assigned one."""
        return list(self._partitions)

    @property
    def waiting(self) -> int:
        """Messages that are taken and not durable."""
        return sum(len(one.waiting) for one in self._partitions.values())

    def assign(self, topic: str, partition: int, next_offset: int) -> None:
        """Begin a partition at an offset; what was taken of it before counts no more."""
        self._assignments += 1
        self._partitions[topic, partition] = _Partition(
            self._assignments, next_offset, committed=next_offset
        )

    def revoke(self, topic: str, partition: int) -> None:
        """Give a partition up."""
        self._partitions.pop((topic, partition), None)

    def take(self, topic: str, partition: int, offset: int) -> Place | None:
        """A message was taken; None where its partition is not ours any more."""
        one = self._partitions.get((topic, partition))
        if one is None:
            return None
        one.waiting.append(offset)
        one.next_offset = offset + 1
        return Place(topic, partition, offset, one.assignment)

    def done(self, place: Place) -> None:
        """A message is durable, or needs no longer to be."""
        one = self._partitions.get((place.topic, place.partition))
        if one is None or one.assignment != place.assignment:
            return
        one.durable.add(place.offset)
        while one.waiting and one.waiting[0] in one.durable:
            one.durable.discard(one.waiting.popleft())

    def to_commit(self, *, again: bool = False) -> dict[tuple[str, int], int]:
        """The offset to commit of each partition where it has moved since `committed`.

        Parameters
        ----------
        again
            Also where it has not: what was handed over may have been refused unheard.
        """
        return {
            key: one.committable
            for key, one in self._partitions.items()
            if again or one.committable != one.committed
        }

    def committed(self, offsets: dict[tuple[str, int], int]) -> None:
        """These offsets were handed to the brokers."""
        for key, offset in offsets.items():
            if key in self._partitions:
                self._partitions[key].committed = offset

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset to take of each partition."""
        return {key: one.next_offset for key, one in self._partitions.items()}
