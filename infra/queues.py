"""Envelopes in from one stage, out to the next: queues bounded by bytes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from schemas.segments import Envelope


class QueueClosed(Exception):  # noqa: N818 - a signal between threads, not an error
    """The pipeline stops: nothing more is put or taken."""


class ByteQueue:
    """A first-in, first-out queue of envelopes that holds at most `bytes_max` bytes.

    Threads take from it with `get`; asyncio code puts with `put`, threads with `put_blocking`.
    A single envelope above the bound is let through when the queue is empty, so that a large
    block passes rather than stalls. Envelopes count from `put` until `done`, so that an empty
    queue means that the next stage has finished with them.
    """

    def __init__(self, name: str, bytes_max: int) -> None:
        self.name = name
        self.bytes_max = bytes_max
        self._envelopes: deque[Envelope] = deque()
        self._bytes = 0
        self._undone = 0
        self._closed = False
        self._changed = threading.Condition()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @property
    def bytes_waiting(self) -> int:
        """Bytes put and not yet taken."""
        return self._bytes

    @property
    def undone(self) -> int:
        """Envelopes put whose `done` has not been called."""
        return self._undone

    def _try_put(self, envelope: Envelope) -> bool:
        size = len(envelope.value)
        if self._closed:
            raise QueueClosed(self.name)
        if self._bytes and self._bytes + size > self.bytes_max:
            return False
        self._envelopes.append(envelope)
        self._bytes += size
        self._undone += 1
        self._changed.notify_all()
        return True

    async def put(self, envelope: Envelope) -> None:
        """Put, waiting while the queue is full; raises QueueClosed."""
        while True:
            with self._changed:
                if self._try_put(envelope):
                    return
                loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            await waiter

    def put_blocking(self, envelope: Envelope) -> None:
        """Put from a thread, waiting while the queue is full; raises QueueClosed."""
        with self._changed:
            while not self._try_put(envelope):
                self._changed.wait()

    def get(self, timeout_seconds: float | None = None) -> Envelope | None:
        """The next envelope, or None when the time is up; raises QueueClosed once drained."""
        with self._changed:
            if not self._envelopes and not self._closed:
                self._changed.wait(timeout_seconds)
            if not self._envelopes:
                if self._closed:
                    raise QueueClosed(self.name)
                return None
            envelope = self._envelopes.popleft()
            self._bytes -= len(envelope.value)
            self._wake()
            return envelope

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
