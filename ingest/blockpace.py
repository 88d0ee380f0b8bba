"""Blocks and a rate in, waits out: how a backfill is kept from taking all there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class BlockPace:
    """Lets so many blocks a second pass, evenly; a backlog of time is not made up for.

    Parameters
    ----------
    blocks_per_second_max
        The rate; None lets everything pass.
    clock, sleep
        Injected for tests.
    """

    def __init__(
        self,
        blocks_per_second_max: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = blocks_per_second_max, clock, sleep
        self._free_at = 0.0

    async def wait(self, blocks: int) -> None:
        """Wait until `blocks` more may pass."""
        if self._rate is None:
            return
        now = self._clock()
        start = max(self._free_at, now)
        self._free_at = start + blocks / self._rate
        if start > now:
            await self._sleep(start - now)
