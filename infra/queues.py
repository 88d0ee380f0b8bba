"""Envelopes in from one stage, out to the next: queues bounded by bytes, the head lane first."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from schemas.segments import Envelope


class QueueClosed(Exception):
    """The pipeline stops: nothing more is put or taken."""


class ByteQueue:
    """A queue of envelopes, first in first out per lane, of at most `bytes_max` bytes a lane.

    Threads take with `get`, which prefers the head lane, so that the head never waits behind a
    backfill. Asyncio code puts with `put`, threads with `put_blocking`; both wait while the lane
    is full. An envelope above the bound is let through when its lane is empty, so that a large
    block passes rather than stalls. Envelopes count as undone from `put` until `done`.
    """

    def __init__(self, name: str, bytes_max: int) -> None:
        self.name = name
        self.bytes_max = bytes_max
        self._lanes: dict[str, deque[Envelope]] = {"head": deque(), "history": deque()}
        self._bytes = {"head": 0, "history": 0}
        self._undone = 0
        self._closed = False
        self._changed = threading.Condition()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

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
        size = len(envelope.value)
        if self._bytes[lane] and self._bytes[lane] + size > self.bytes_max:
            return False
        self._lanes[lane].append(envelope)
        self._bytes[lane] += size
        self._undone += 1
        self._changed.notify_all()
        return True

    async def put(self, envelope: Envelope) -> None:
        """Put, waiting while the lane is full; raises QueueClosed."""
        while True:
            with self._changed:
                if self._try_put(envelope):
                    return
                loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            await waiter

    def put_blocking(self, envelope: Envelope) -> None:
        """Put from a thread, waiting while the lane is full; raises QueueClosed."""
        with self._changed:
            while not self._try_put(envelope):
                self._changed.wait()

    def get(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next envelope, or None when the time is up; raises QueueClosed once drained."""
        with self._changed:
            if not any(self._lanes.values()) and not self._closed:
                self._changed.wait(timeout_seconds)
            for lane, envelopes in self._lanes.items():
                if envelopes:
                    envelope = envelopes.popleft()
                    self._bytes[lane] -= len(envelope.value)
                    self._wake()
                    return envelope
            if self._closed:
                raise QueueClosed(self.name)
            return None

    def done(self, count: int = 1) -> None:
        """Say that `count` envelopes taken from here have left the next stage for good."""
        with self._changed:
            self._undone -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse further puts; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        while self._waiters:
            loop, waiter = self._waiters.popleft()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
