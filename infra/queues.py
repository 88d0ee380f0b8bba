"""Envelopes in from one stage, out to the next: queues bounded by bytes, the head lane first."""

from __future__ import annotations

from collections import deque

from infra.room import Room
from schemas.segments import Envelope
from sinks.load_block import block_bytes


class QueueClosed(Exception):
    """The pipeline stops: nothing more is put or taken."""


class ByteQueue:
    """A queue of envelopes, first in first out per lane, of at most `bytes_max` bytes a lane.

    Threads take with `get`, which prefers the head lane, so that the head never waits behind a
    backfill. Asyncio code puts with `put`, threads with `put_blocking`; both wait while the lane
    is full. An envelope above the bound is let through when its lane is empty, so that a large
    block passes rather than stalls. Envelopes count as undone from `put` until `done`. What counts
    is an envelope's message and the columns that it carries beside it.
    """

    def __init__(self, name: str, bytes_max: int) -> None:
        self.name = name
        self.bytes_max = bytes_max
        self._lanes: dict[str, deque[tuple[Envelope, int]]] = {"head": deque(), "history": deque()}
        self._bytes = {"head": 0, "history": 0}
        self._undone = 0
        self._closed = False
        self._room = Room()

    @property
    def bytes_waiting(self) -> int:
        """Bytes put and not yet taken."""
        return sum(self._bytes.values())

    @property
    def heads_waiting(self) -> int:
        """Envelopes of the head lane put and not yet taken."""
        return len(self._lanes["head"])

    @property
    def undone(self) -> int:
        """Envelopes put whose `done` has not been called."""
        return self._undone

    def _try_put(self, envelope: Envelope) -> bool:
        if self._closed:
            raise QueueClosed(self.name)
        lane = envelope.headers["lane"]
        size = envelope_bytes(envelope)
        if self._bytes[lane] and self._bytes[lane] + size > self.bytes_max:
            return False
        self._lanes[lane].append((envelope, size))
        self._bytes[lane] += size
        self._undone += 1
        self._room.filled()
        return True

    async def put(self, envelope: Envelope) -> None:
        """Put, waiting while the lane is full; raises QueueClosed."""
        await self._room.until_async(lambda: self._try_put(envelope))

    def put_at_once(self, envelope: Envelope) -> bool:
        """Put if there is room; False where the lane is full. Raises QueueClosed."""
        with self._room:
            return self._try_put(envelope)

    def put_blocking(self, envelope: Envelope) -> None:
        """Put from a thread, waiting while the lane is full; raises QueueClosed."""
        self._room.until(lambda: self._try_put(envelope))

    def get(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next envelope, or None when the time is up; raises QueueClosed once drained."""
        with self._room:
            if not any(self._lanes.values()) and not self._closed:
                self._room.wait(timeout_seconds)
            for lane, envelopes in self._lanes.items():
                if envelopes:
                    envelope, size = envelopes.popleft()
                    self._bytes[lane] -= size
                    self._room.changed()
                    return envelope
            if self._closed:
                raise QueueClosed(self.name)
            return None

    def done(self, count: int = 1) -> None:
        """Say that `count` envelopes taken from here have left the next stage for good."""
        with self._room:
            self._undone -= count

    def close(self) -> None:
        """Refuse further puts; what is inside can still be taken."""
        with self._room:
            self._closed = True
            self._room.changed()


def envelope_bytes(envelope: Envelope) -> int:
    """Bytes that an envelope keeps in memory: its message, and the columns at hand beside it."""
    carried = envelope.segment.tables if envelope.segment is not None else ()
    return len(envelope.value) + sum(block_bytes(block) for block in carried)
