"""Seconds in, a loop whose clock has leapt on by them out: what is due by then is due now."""

from __future__ import annotations

import asyncio


def leap(seconds: float) -> None:
    """Let time pass at once, for the timers of the running loop."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


class Gate(asyncio.Event):
    """An event that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> bool:  # type: ignore[override]
        """Tell, then wait."""
        self.reached.set()
        return await super().wait()
