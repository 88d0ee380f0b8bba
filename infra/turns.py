"""Threads that compute in, one of them at a time out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets one thread of a process compute at a time, for as long as it has something to compute.

    numpy, hashes and sockets let go of the interpreter's lock for microseconds. Where other threads
    wait for it, each such moment is a change of threads, dozens a segment, which cost more than
    was computed in them (docs/decisions.md). Threads that take turns change once a segment.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._holder: int | None = None

    @property
    def held(self) -> bool:
        """Whether the calling thread has the turn."""
        return self._holder == threading.get_ident()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn, and have it until the block ends; a thread takes it once."""
        self._turn.acquire()
        self._holder = threading.get_ident()
        try:
            yield
        finally:
            self._holder = None
            self._turn.release()

    @contextmanager
    def leave(self) -> Iterator[None]:
        """Let others compute while the holder waits for something; no matter to anyone else."""
        if not self.held:
            yield
            return
        self._holder = None
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()
            self._holder = threading.get_ident()

    def sleep(self, seconds: float) -> None:
        """Sleep, and let others compute."""
        with self.leave():
            time.sleep(seconds)
