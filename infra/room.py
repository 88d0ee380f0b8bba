"""Those who wait for room in, the same ones once there is some out: threads and coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable


class Room:
    """A lock, and a wait for what changes under it, for threads and for coroutines alike.

    Whoever changes something holds it (``with room``) and calls `changed`.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    def __enter__(self) -> None:
        self._condition.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._condition.release()

    def filled(self) -> None:
        """Let the threads look again: there is less room than before. Called while it is held."""
        self._condition.notify_all()

    def changed(self) -> None:
        """Let everybody look again; called while it is held."""
        self._condition.notify_all()
        while self._waiters:
            loop, waiter = self._waiters.popleft()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, waiter)

    def wait(self, seconds: float | None = None) -> None:
        """Wait for one change, in a thread that holds it."""
        self._condition.wait(seconds)

    def until(self, taken: Callable[[], bool], seconds: float | None = None) -> bool:
        """Call `taken`, held, until it is true; in a thread. False when the time is up."""
        ends = None if seconds is None else time.monotonic() + seconds
        with self:
            while not taken():
                left = None if ends is None else ends - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self.wait(left)
        return True

    async def until_async(self, taken: Callable[[], bool]) -> None:
        """Call `taken`, held, until it is true; in a coroutine."""
        while True:
            with self:
                if taken():
                    return
                loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            await waiter


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
