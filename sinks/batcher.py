"""Segments in, batches of one stream, lane and partition out, bounded by rows, bytes and age.

It does no IO and reads no clock: the caller tells the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from sinks.load_block import block_bytes
from sinks.writer import Segment, table_blocks

Token = TypeVar("Token")
BESIDE_MAX = 2
"""Times a batch's bytes that the open batches of one stream and partition hold together."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch of history segments is written."""

    rows_max: int = 1_000_000
    """Rows over all tables."""
    bytes_max: int = 64 << 20
    """Bytes of its columns in memory."""
    age_seconds_max: float = 15.0
    """How long its first segment waits: an insert into each of some 30 tables costs as much of one
    row as of a thousand (``benchmarks/insert_cost.py``)."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Token]):
    """Segments that are written as one load."""

    segments: tuple[Segment, ...]
    """In the order in which they came."""
    tokens: tuple[Token, ...]
    """What came with each: to be acknowledged when the load is complete."""


@dataclass(slots=True)
class _Open(Generic[Token]):
    segments: list[Segment] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    starts: set[int] = field(default_factory=set)
    rows: int = 0
    size_bytes: int = 0
    since: float = 0.0

    def closed(self) -> Batch[Token]:
        return Batch(tuple(self.segments), tuple(self.tokens))


_Key: TypeAlias = tuple[str, int, str, int]
"""Stream, partition, content version, and which of the batches side by side."""


class Batcher(Generic[Token]):
    """Groups segments by (stream, lane, partition, content); a head segment is a batch of its own.

    Two segments of the same blocks are never in one batch: their rows would be there twice under
    one load. They have different names where ingesters prove differently, or are not of one mind
    about the chain. The batches of each are open side by side: a batch that closed at each
    repetition would make small loads, and loads that overlap in part, of which a canon can take
    but one and asks for the rest of the other again.
    """

    def __init__(self, partition_blocks: int, limits: BatchLimits | None = None) -> None:
        self._partition_blocks = partition_blocks
        self._limits = limits or BatchLimits()
        self._open: dict[_Key, _Open[Token]] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes that wait."""
        return sum(batch.size_bytes for batch in self._open.values())

    def add(self, segment: Segment, token: Token, now: float) -> list[Batch[Token]]:
        """Take a segment; return the batches that are full because of it.

        Parameters
        ----------
        token
            Comes back in the batch.
        now
            Seconds of any steady clock.
        """
        if segment.name.lane == "head":
            return [Batch((segment,), (token,))]
        key = self._key(segment)
        blocks = table_blocks(segment).values()
        rows = sum(block.rows for block in blocks)
        size_bytes = sum(block_bytes(block) for block in blocks)
        full = []
        batch = self._open.get(key)
        if batch and not self._fits(batch.rows + rows, batch.size_bytes + size_bytes):
            full.append(self._open.pop(key).closed())
            batch = None
        if batch is None:
            batch = self._open[key] = _Open(since=now)
        batch.segments.append(segment)
        batch.tokens.append(token)
        batch.starts.add(segment.name.from_block)
        batch.rows += rows
        batch.size_bytes += size_bytes
        if not self._fits(batch.rows + 1, batch.size_bytes + 1):
            full.append(self._open.pop(key).closed())
        return full + self._too_many_bytes(key[:2])

    def due(self, now: float) -> list[Batch[Token]]:
        """The batches whose first segment has waited long enough."""
        oldest = now - self._limits.age_seconds_max
        keys = [key for key, batch in self._open.items() if batch.since <= oldest]
        return [self._open.pop(key).closed() for key in keys]

    def next_due(self) -> float | None:
        """When `due` has something to return, on the caller's clock; None if nothing waits."""
        waits = [batch.since for batch in self._open.values()]
        return min(waits) + self._limits.age_seconds_max if waits else None

    def flush(self) -> list[Batch[Token]]:
        """Every batch that waits."""
        batches = [batch.closed() for batch in self._open.values()]
        self._open.clear()
        return batches

    def _fits(self, rows: int, size_bytes: int) -> bool:
        return rows <= self._limits.rows_max and size_bytes <= self._limits.bytes_max

    def _key(self, segment: Segment) -> _Key:
        """Of the first batch of its kind that lacks its blocks; of none yet, if all hold them."""
        name = segment.name
        partition = name.from_block // self._partition_blocks
        beside = 0
        while True:
            key = (name.stream, partition, name.content_version, beside)
            batch = self._open.get(key)
            if batch is None or name.from_block not in batch.starts:
                return key
            beside += 1

    def _too_many_bytes(self, place: tuple[str, int]) -> list[Batch[Token]]:
        """The largest batches of a stream and partition that hold too much together, closed."""
        beside = {key: batch.size_bytes for key, batch in self._open.items() if key[:2] == place}
        full = []
        while sum(beside.values()) > BESIDE_MAX * self._limits.bytes_max:
            largest = max(beside, key=beside.__getitem__)
            del beside[largest]
            full.append(self._open.pop(largest).closed())
        return full
