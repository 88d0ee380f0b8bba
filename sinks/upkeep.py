"""Time in, folds, seals and sweeps out: the chores beside the publisher, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from schemas.errors import Transient
from sinks.compaction import Compactor, Folded
from sinks.sealer import Sealed, Sealer
from sinks.sweeper import Sweeper


class Upkeep:
    """Runs compactor, sealer and sweeper one after the other, again and again.

    A chore that meets a transient failure is left for the next turn; all of them are safe to be
    cut short anywhere. Any other failure ends the thread and stands in `failure`.

    Parameters
    ----------
    compactor, sealer, sweeper
        The chores, on connections of their own.
    pause_seconds
        Between two turns.
    on_done
        Called with each fold and seal.
    on_trouble
        Called with each transient failure.
    """

    def __init__(
        self,
        compactor: Compactor,
        sealer: Sealer,
        sweeper: Sweeper,
        *,
        pause_seconds: float = 2.0,
        on_done: Callable[[Folded | Sealed], None] = lambda _done: None,
        on_trouble: Callable[[Transient], None] = lambda _error: None,
    ) -> None:
        self.failure: BaseException | None = None
        self._compactor, self._sealer, self._sweeper = compactor, sealer, sweeper
        self._pause_seconds, self._on_done, self._on_trouble = pause_seconds, on_done, on_trouble
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Finish the chore at hand, and end; False when that takes longer than `seconds`."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def run_once(self) -> None:
        """Each chore once.

        Raises
        ------
        HeadraceError
            What a chore raises.
        """
        for folded in self._compactor.run_once():
            self._on_done(folded)
        if not self._stopping.is_set():
            for sealed in self._sealer.run_once():
                self._on_done(sealed)
        if not self._stopping.is_set():
            self._sweeper.run_once()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_seconds):
            try:
                self.run_once()
            except Transient as error:
                self._on_trouble(error)
            except BaseException as error:  # noqa: BLE001 - a dead thread must be seen
                self.failure = error
                return
