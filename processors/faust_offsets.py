"""Events of a Faust app in, their acknowledgements in order out; and Faust mended where it errs.

Impure, as `processors.agents` is: what of that shell has nothing to do with messages' contents.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import faust
import structlog
from faust.tables.manager import TableManager
from faust.transport.consumer import Consumer
from faust.types import TP, EventT

from schemas.errors_process import FaustUntested, OffsetsLost

log = structlog.get_logger(__name__)

FAUST_VERSION = "0.15.3"
"""The version whose behaviour was measured, and is patched below."""


class EagerTables(TableManager):
    """Every agent and table is declared before the app starts: nothing is waited for."""

    async def on_start(self) -> None:
        """As Faust's own, without its first second of sleep."""
        await self._update_channels()
        await self.recovery.start()


def patch_faust() -> None:
    """Keep an offset that follows a gap from being counted into the gap, too.

    Faust takes the message behind a gap (compaction, markers, retention) for a part of it. Its
    offset is then listed twice once it is acknowledged, and commits crawl: one gap an interval.

    Raises
    ------
    FaustUntested
        If the installed Faust is not the one that is patched.
    """
    found = metadata.version("faust-streaming")
    if found != FAUST_VERSION:
        raise FaustUntested(found=found, expected=FAUST_VERSION)
    if hasattr(Consumer._add_gap, "original"):
        return
    original = Consumer._add_gap

    async def add_gap(self: Consumer, tp: TP, offset_from: int, offset_to: int) -> None:
        await original(self, tp, offset_from, offset_to - 1)

    add_gap.original = original  # type: ignore[attr-defined]
    Consumer._add_gap = add_gap  # type: ignore[method-assign]


class Offsets:
    """Finds what retention took away unread: the next offset that each partition has to bring."""

    def __init__(self, app: faust.App, *, accept_lost: bool) -> None:
        self._app, self._accept_lost = app, accept_lost
        self._generation: int | None = -1
        self._next: dict[TP, int] = {}

    def committed(self, tp: TP) -> int | None:
        """The offset at which reading began; None where nothing was committed before."""
        begun: int | None = self._app.consumer._committed_offset[tp]  # type: ignore[attr-defined]
        return begun

    async def check(self, event: EventT[Any]) -> None:
        """Look at an event before anything is done with it.

        Raises
        ------
        OffsetsLost
            If messages between it and the one before were dropped.
        """
        message = event.message
        tp, offset = message.tp, message.offset
        if message.generation_id != self._generation:
            self._generation = message.generation_id
            self._next.clear()
        expected = self._next.get(tp)
        if expected is None:
            expected = self.committed(tp)
        self._next[tp] = offset + 1
        if expected is None or offset <= expected:
            return
        kept: Mapping[TP, int | None] = await self._app.consumer.earliest_offsets(tp)
        earliest = kept[tp]
        if earliest is None or earliest <= expected:
            return  # What is not there was never a message of ours: markers, or compaction.
        lost = OffsetsLost(
            topic=tp.topic,
            partition=tp.partition,
            first=expected,
            last=min(earliest, offset) - 1,
        )
        if not self._accept_lost:
            raise lost
        log.warning("offsets_lost_accepted", what=lost.what_text)


@dataclass(slots=True)
class Waiting:
    """An event that was taken up."""

    event: EventT[Any]
    """The event."""
    done: bool = False
    """Whether the brokers have what follows from it."""


class Acks:
    """Acknowledges the events of an agent in the order of their offsets, whatever is done first.

    Faust takes the first offset that is acknowledged after a start for the first there is.
    """

    def __init__(self, app: faust.App) -> None:
        self._app = app
        self._waiting: dict[TP, deque[Waiting]] = defaultdict(deque)

    def begin(self, event: EventT[Any]) -> Waiting:
        """Take an event up; to be called in the order of the offsets."""
        waiting = Waiting(event)
        self._waiting[event.message.tp].append(waiting)
        return waiting

    def end(self, waiting: Waiting) -> None:
        """The brokers have what follows from an event."""
        waiting.done = True
        line = self._waiting[waiting.event.message.tp]
        while line and line[0].done:
            event = line.popleft().event
            # An event of an earlier assignment was read again by now, here or elsewhere.
            if event.message.generation_id == self._app.consumer_generation_id:
                event.ack()
