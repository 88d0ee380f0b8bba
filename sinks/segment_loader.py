"""Segments in from one lane, complete loads and the places of what is durable out.

It batches history by rows, bytes and age, and writes the head at once. Segments that are known are
done without a load; one that comes again while it waits in a batch is done with it. A segment that
the tables do not take is refused alone, however it was batched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors import HeadraceError
from schemas.errors_sinks import ColumnsMismatch
from schemas.segments import LogSegment, SegmentName
from sinks.batcher import Batcher
from sinks.known_segments import KnownSegments
from sinks.offsets import Place
from sinks.writer import Load, Segment, Writer

FAILURES_TABLE = "decode_failures"
HEADS_MAX = 32
"""Head blocks of a stream that share their inserts while the head catches up."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message's segment on its way into a load."""

    segment: Segment
    """What it holds."""
    again: str | None
    """Id of the request that it answers, if any."""


@dataclass(slots=True)
class LoadCounts:
    """What a loader has made durable since its start."""

    loads: int = 0
    """Loads."""
    blocks: int = 0
    """Blocks whose logs are loaded."""
    logs: int = 0
    """Logs."""
    decode_failures: int = 0
    """Rows of `decode_failures`."""
    known: int = 0
    """Segments that needed no load."""


class SegmentLoader:
    """Writes one lane's segments; used by one thread.

    Parameters
    ----------
    writer, batcher, known
        Of that thread.
    partition_blocks
        Blocks of one partition.
    on_done
        Called with the place of each message that is durable, or known.
    on_refused
        Called with each place of a segment that the tables refuse, and the reason.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self,
        writer: Writer,
        batcher: Batcher[Arrival],
        known: KnownSegments,
        partition_blocks: int,
        *,
        on_done: Callable[[Place], None],
        on_refused: Callable[[Place, HeadraceError], None],
        clock: Callable[[], float],
    ) -> None:
        self.counts = LoadCounts()
        self._writer, self._batcher, self._known = writer, batcher, known
        self._partition_blocks, self._clock = partition_blocks, clock
        self._on_done, self._on_refused = on_done, on_refused
        self._places: dict[SegmentName, list[Place]] = {}
        self._heads: dict[tuple[str, int], list[Arrival]] = {}
        self._full: deque[list[Arrival]] = deque()

    @property
    def waiting(self) -> int:
        """Segments that are taken and not durable."""
        return len(self._places)

    def take(self, segment: Segment, place: Place, again: str | None = None) -> None:
        """Take a segment; nothing is written yet."""
        name = segment.name
        if self._known.holds(name, again):
            self.counts.known += 1
            self._on_done(place)
            return
        waiting = self._places.setdefault(name, [])
        waiting.append(place)
        if len(waiting) > 1:
            return
        arrival = Arrival(segment, again)
        if name.lane == "head":
            partition = name.from_block // self._partition_blocks
            self._heads.setdefault((name.stream, partition), []).append(arrival)
            return
        for batch in self._batcher.add(segment, arrival, self._clock()):
            self._full.append(list(batch.tokens))

    def write(
        self,
        *,
        more: bool = False,
        hurry: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Write what is full or has waited long enough.

        Parameters
        ----------
        more
            More head blocks are at hand: those that wait are written with them.
        hurry
            Nothing more is coming: write everything.
        between
            Called after each write.

        Raises
        ------
        HeadraceError
            One of HR-40xx. What was not written is kept, and comes first next time.
        """
        self._known.refresh()
        self._writer.generation = self._known.generation
        for key, arrivals in list(self._heads.items()):
            if hurry or not more or len(arrivals) >= HEADS_MAX:
                self._write_heads(key)
                between()
        for batch in self._batcher.flush() if hurry else self._batcher.due(self._clock()):
            self._full.append(list(batch.tokens))
        while self._full:
            self._write_batch(self._full[0])
            self._full.popleft()
            between()

    def _write_heads(self, key: tuple[str, int]) -> None:
        arrivals = self._heads[key]
        while arrivals:
            part = arrivals[:HEADS_MAX]
            self._apart(part, apart=True)
            del arrivals[: len(part)]
        del self._heads[key]

    def _write_batch(self, arrivals: list[Arrival]) -> None:
        self._apart(arrivals, apart=False)

    def _apart(self, arrivals: Sequence[Arrival], *, apart: bool) -> None:
        """Write segments together; one by one where the tables refuse some of them."""
        segments = [arrival.segment for arrival in arrivals]
        try:
            loads = self._writer.write_apart(segments) if apart else [self._writer.write(segments)]
        except (ColumnsMismatch, ValueError, TypeError, LookupError) as error:
            if len(arrivals) == 1:
                self._refuse(arrivals[0], error)
                return
            for arrival in arrivals:
                if arrival.segment.name in self._places:
                    self._apart([arrival], apart=apart)
            return
        self._tell(arrivals, loads)

    def _tell(self, arrivals: Sequence[Arrival], loads: Sequence[Load]) -> None:
        """Count what is durable, and say so."""
        self._known.add((arrival.segment.name, arrival.again) for arrival in arrivals)
        self.counts.loads += len(loads)
        for load in loads:
            if load.stream == "events":
                failures = (row.manifest()[FAILURES_TABLE][0] for row in load.ledger)
                self.counts.decode_failures += sum(failures)
        for arrival in arrivals:
            segment = arrival.segment
            if isinstance(segment, LogSegment):
                self.counts.blocks += segment.headers.rows
                self.counts.logs += segment.logs.rows
            for place in self._places.pop(segment.name, ()):
                self._on_done(place)

    def _refuse(self, arrival: Arrival, error: BaseException) -> None:
        name = arrival.segment.name
        if not isinstance(error, HeadraceError):
            detail = f"{type(error).__name__}: {error}"
            error = ColumnsMismatch(table=f"{name.stream} (any)", detail=detail)
        places = self._places.get(name, [])
        while places:
            # Where that fails, the rest is refused next time: none of it may be forgotten.
            self._on_refused(places[0], error)
            del places[0]
        self._places.pop(name, None)
