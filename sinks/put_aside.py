"""Put a chore aside for a while when it fails for good, so that the head goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.errors import Permanent
from schemas.errors_canon import StalePublisher

RETRY_SECONDS = 3600.0
"""How long a chore stays aside. A fold that fails leaves a copy that only the seal of its partition
removes, so the retries are few."""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work of a chore."""

    chore: str
    """`fold`, `seal` or `sweep`."""
    loads: frozenset[int] = frozenset()
    """The loads that it reads; a task of other loads is another task."""
    from_block: int | None = None
    """First block of these loads, where it works on blocks."""
    to_block: int | None = None
    """Last block."""


class PutAside:
    """The tasks that failed with a permanent error, each until its retry.

    A task leaves early when one of its loads is not visible any more: a replay replaced it.

    Parameters
    ----------
    visible_loads
        The loads that the canon shows now.
    on_failure
        Called with each failure.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        visible_loads: Callable[[], Set[int]],
        *,
        on_failure: Callable[[Task, Permanent], None] = lambda _task, _error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._visible_loads, self._on_failure, self._clock = visible_loads, on_failure, clock
        self._retry_at: dict[Task, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many tasks are aside. From any thread."""
        with self._lock:
            return len(self._retry_at)

    def refresh(self) -> None:
        """Let tasks go whose time is over or whose loads were replaced."""
        visible, now = self._visible_loads(), self._clock()
        with self._lock:
            self._retry_at = {
                task: retry_at
                for task, retry_at in self._retry_at.items()
                if now < retry_at and task.loads <= visible
            }

    def loads(self, chore: str) -> frozenset[int]:
        """All loads of a chore's tasks that are aside."""
        with self._lock:
            return frozenset[int]().union(
                *(task.loads for task in self._retry_at if task.chore == chore)
            )

    def holds(self, task: Task) -> bool:
        """Whether a task is aside."""
        with self._lock:
            return task in self._retry_at

    @contextmanager
    def attempt(self, task: Task) -> Iterator[None]:
        """Put the task aside if the block fails with a permanent error.

        Raises
        ------
        StalePublisher
            If another publisher claimed the chain: that ends this one.
        Transient
            Whatever may pass by itself.
        """
        try:
            yield
        except StalePublisher:
            raise
        except Permanent as error:
            with self._lock:
                self._retry_at[task] = self._clock() + RETRY_SECONDS
            self._on_failure(task, error)
