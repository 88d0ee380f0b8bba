"""Signals in, an event or a cancellation out: how Ctrl-C ends a run."""

from __future__ import annotations

import asyncio
import signal
from typing import Any


class StopSignal:
    """SIGINT and SIGTERM of one task.

    The first asks a run whose stages work to drain. Before they work, and the second time, the
    task is cancelled at once: nothing is lost by it, because what counts is in the ledger.

    Parameters
    ----------
    task
        What is cancelled.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.asked = asyncio.Event()
        """Set by the first signal."""
        self.patient = False
        """Whether there is something to drain."""
        self._task = task
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self.patient and not self.asked.is_set():
            self.asked.set()
        else:
            self._task.cancel()
