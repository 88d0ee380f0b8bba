"""Events of a Faust app in, their acknowledgements in order out; none is passed over.

Impure, as `processors.agents` is: what of that shell has nothing to do with messages' contents.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import faust
import structlog
from faust.types import TP, EventT

from processors.agent_plan import KeptMessage, TopicReading
from schemas.errors_process import MessagesSkipped, OffsetsLost, WorkerFailed

log = structlog.get_logger(__name__)


class Offsets:
    """Sees to it that an agent is given every message of its partitions, in order.

    In each assignment, offsets run without a gap from the committed one. Whatever the cause of a
    gap, the agent ends before it acknowledges anything behind it, so that nothing is passed over:
    what lies in the gap is read by the next worker, and what retention took away is said.

    Parameters
    ----------
    app
        The app.
    reader
        Opens a reader of a topic by its name on the brokers, to look into a gap.
    accept_lost
        Go on after messages that retention dropped.
    """

    def __init__(
        self, app: faust.App, reader: Callable[[str], TopicReading], *, accept_lost: bool
    ) -> None:
        self._app, self._reader, self._accept_lost = app, reader, accept_lost
        self._generation: int | None = -1
        self._next: dict[TP, int] = {}

    def committed(self, tp: TP) -> int | None:
        """The offset at which reading began; None where nothing was committed before."""
        begun: int | None = self._app.consumer._committed_offset[tp]  # type: ignore[attr-defined]
        return begun

    async def check(self, event: EventT[Any]) -> bool:
        """Look at an event before anything is done with it.

        Returns
        -------
        bool
            Whether it is to be taken. One of an earlier assignment is not: it is read again.

        Raises
        ------
        OffsetsLost
            If messages between it and the one before were dropped.
        MessagesSkipped
            If they lie in the topic.
        """
        message = event.message
        if message.generation_id != self._app.consumer_generation_id:
            return False
        tp, offset = message.tp, message.offset
        if message.generation_id != self._generation:
            self._generation = message.generation_id
            self._next.clear()
        expected = self._next.get(tp)
        if expected is None:
            expected = self.committed(tp)
        if expected is None:
            expected = (await self._app.consumer.earliest_offsets(tp))[tp] or 0
        self._next[tp] = offset + 1
        if offset > expected:
            await self._look_into_gap(tp, expected, offset)
        return True

    async def _look_into_gap(self, tp: TP, expected: int, offset: int) -> None:
        kept: Mapping[TP, int | None] = await self._app.consumer.earliest_offsets(tp)
        earliest = kept[tp]
        if earliest is not None and earliest > expected:
            lost = OffsetsLost(
                topic=tp.topic,
                partition=tp.partition,
                first=expected,
                last=min(earliest, offset) - 1,
            )
            if not self._accept_lost:
                raise lost
            log.warning("offsets_lost_accepted", what=lost.what_text)
        if await asyncio.to_thread(self._any_between, tp, expected, offset):
            raise MessagesSkipped(
                topic=tp.topic, partition=tp.partition, expected=expected, offset=offset
            )
        # What is not there was never a message of ours: markers, or compaction.

    def _any_between(self, tp: TP, first: int, end: int) -> bool:
        with self._reader(tp.topic) as reader:
            return next(reader.read(tp.partition, first, end), None) is not None


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


def read_all(reader: TopicReading, first: int, end: int) -> list[KeptMessage]:
    """The messages of ``[first, end)`` of a topic of one partition, none left out.

    Raises
    ------
    WorkerFailed
        If the brokers did not bring the last of them.
    """
    found = list(reader.read(0, first, end))
    if not found or found[-1].offset != end - 1:
        missing = found[-1].offset + 1 if found else first
        raise WorkerFailed(detail=f"the messages from offset {missing} on did not come")
    return found
