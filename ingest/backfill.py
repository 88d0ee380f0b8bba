"""Missing grid segments in, proven segments out, in order: the history lane.

Segments are fetched concurrently within a window that is bounded in segments and in bytes. A
segment leaves the window when it and all before it are proven and its successor, where adjacent,
names its last block as parent: a false but self-consistent segment is found by its neighbours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ingest.endpoint import Endpoint
from ingest.proven import Fetched, ProvenFetcher
from ingest.providers import ProviderPool
from ingest.publish import Built
from schemas.errors import HeadraceError
from schemas.errors_ingest import ChainBroken

SEGMENT_BYTES_GUESS = 1024 * 1024
"""What a segment's answers are taken to weigh before the first has come."""
GUESS_SHARE_NEW = 0.2
"""Share of the newest segment in the running guess."""


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """A grid segment that is still missing."""

    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""


FetchSegment = Callable[[SegmentRange, set[Endpoint]], Awaitable[Fetched]]
"""Fetches one segment, from others than the given endpoints while there are any."""


@dataclass(slots=True)
class BackfillProgress:
    """How far a backfill is, for the display."""

    segments_done: int = 0
    """Segments yielded."""
    blocks_done: int = 0
    """Blocks yielded."""
    logs_done: int = 0
    """Logs yielded."""
    segments_in_window: int = 0
    """Segments being fetched or waiting for their turn."""
    bytes_in_window: int = 0
    """Bytes of answers in the window, guessed where they are not there yet."""


@dataclass(slots=True)
class _Slot:
    task: asyncio.Task[Fetched]

    def weight_bytes(self, guess_bytes: int) -> int:
        """Bytes of its answers, or the guess while they are not there."""
        if self.task.done() and not self.task.cancelled() and self.task.exception() is None:
            return self.task.result().size_bytes
        return guess_bytes


@dataclass(slots=True)
class Backfill:
    """Fetches missing segments; iterate over `run()`.

    Resuming is the caller's: what the ledger holds is not asked for again.
    """

    pool: ProviderPool
    """Who is asked."""
    fetch: FetchSegment
    """Fetches and proves one segment; see `receipts_source` and `LogsSource`."""
    known_hashes: Mapping[int, bytes] = field(default_factory=dict)
    """Hashes that blocks must have, by height: of neighbours stored, of the finalized block."""
    progress: BackfillProgress = field(default_factory=BackfillProgress)
    """Counts, for the display."""
    _guess_bytes: int = SEGMENT_BYTES_GUESS
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, missing: Iterable[SegmentRange]) -> AsyncGenerator[Built, None]:
        """Fetch `missing` and yield it in the order given.

        Parameters
        ----------
        missing : Iterable[SegmentRange]
            Grid segments, ascending; consumed lazily.

        Yields
        ------
        Built
            A proven segment that links to its stored or just yielded neighbours.

        Raises
        ------
        HeadraceError
            A segment could not be had; those yielded before it are good.
        """
        window: deque[_Slot] = deque()
        waiting = iter(missing)
        known = dict(self.known_hashes)
        held: Fetched | None = None
        try:
            while True:
                self._fill(window, waiting)
                if not window:
                    break
                if not window[0].task.done():
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                fetched = await self._link_to_known(self._take(window), known)
                if held is not None:
                    held, fetched = await self._link(held, fetched, known)
                    yield self._leave(held, known)
                held = fetched
            if held is not None:
                yield self._leave(held, known)
        finally:
            for slot in window:
                slot.task.cancel()
            await asyncio.gather(*(slot.task for slot in window), return_exceptions=True)

    def _fill(self, window: deque[_Slot], waiting: Iterator[SegmentRange]) -> None:
        """Start segments while the window has room; the oldest always may run."""
        limits = self.pool.limits
        # Two more than can be asked at once keep every place of the endpoints busy.
        busy_max = min(limits.window_segments_max, self.pool.capacity() + 2)
        unfinished = sum(not slot.task.done() for slot in window)
        weight = sum(slot.weight_bytes(self._guess_bytes) for slot in window)
        while len(window) < limits.window_segments_max and unfinished < busy_max:
            if window and weight + self._guess_bytes > limits.in_flight_bytes_max:
                break
            segment = next(waiting, None)
            if segment is None:
                break
            task = asyncio.ensure_future(self.fetch(segment, set()))
            task.add_done_callback(lambda _: self._changed.set())
            window.append(_Slot(task))
            weight += self._guess_bytes
            unfinished += 1
        self.progress.segments_in_window = len(window)
        self.progress.bytes_in_window = weight

    def _take(self, window: deque[_Slot]) -> Fetched:
        """The oldest segment of the window, which is there, or its error."""
        fetched = window.popleft().task.result()
        share = GUESS_SHARE_NEW
        guess = (1 - share) * self._guess_bytes + share * fetched.size_bytes
        self._guess_bytes = max(int(guess), 1)
        return fetched

    def _leave(self, fetched: Fetched, known: dict[int, bytes]) -> Built:
        """Count a segment that is good, and hold the next one to it."""
        built = fetched.built
        known[built.to_block] = built.last_hash
        known.pop(built.from_block - 1, None)
        self.progress.segments_done += 1
        self.progress.blocks_done += built.to_block - built.from_block + 1
        self.progress.logs_done += built.logs.logs.rows
        return built

    async def _link_to_known(self, fetched: Fetched, known: Mapping[int, bytes]) -> Fetched:
        """A segment that agrees with what is known of its ends, refetched once if need be."""
        if _agrees(fetched.built, known):
            return fetched
        other = await self._refetch(fetched)
        failure = _broken(fetched, None)
        if not _agrees(other.built, known):
            raise failure
        self._quarantine(fetched, other, failure)
        return other

    async def _link(
        self, parent: Fetched, child: Fetched, known: Mapping[int, bytes]
    ) -> tuple[Fetched, Fetched]:
        """Two neighbours that link; where they do not, others say which of them is false."""
        adjacent = child.built.from_block == parent.built.to_block + 1
        if not adjacent or _links(parent, child):
            return parent, child
        failure = _broken(child, parent)
        other_parent = await self._refetch(parent)
        other_child = await self._refetch(child)
        for first, second in (
            (other_parent, child),
            (parent, other_child),
            (other_parent, other_child),
        ):
            if _links(first, second) and _agrees(first.built, known):
                self._quarantine(parent, first, failure)
                self._quarantine(child, second, failure)
                return first, second
        raise failure

    async def _refetch(self, fetched: Fetched) -> Fetched:
        segment = SegmentRange(fetched.built.from_block, fetched.built.to_block)
        return await self.fetch(segment, {fetched.endpoint})

    def _quarantine(self, old: Fetched, new: Fetched, failure: HeadraceError) -> None:
        """Quarantine who served the segment that was replaced."""
        if old.built.last_hash == new.built.last_hash or old.endpoint is new.endpoint:
            return
        self.pool.quarantine_endpoint(old.endpoint, failure)


def _agrees(built: Built, known: Mapping[int, bytes]) -> bool:
    return (
        known.get(built.from_block - 1, built.parent_hash) == built.parent_hash
        and known.get(built.to_block, built.last_hash) == built.last_hash
    )


def _links(parent: Fetched, child: Fetched) -> bool:
    return child.built.parent_hash == parent.built.last_hash


def _broken(child: Fetched, parent: Fetched | None) -> ChainBroken:
    return ChainBroken(
        block=child.built.from_block,
        endpoint=child.endpoint.name,
        parent_block=child.built.from_block - 1,
        parent_endpoint="what is stored" if parent is None else parent.endpoint.name,
    )


def receipts_source(fetcher: ProvenFetcher) -> FetchSegment:
    """The source `receipts`: whole blocks with all receipts of a segment.

    Parameters
    ----------
    fetcher : ProvenFetcher
        Fetches and proves.
    """

    async def fetch(segment: SegmentRange, avoid: set[Endpoint]) -> Fetched:
        wanted = range(segment.from_block, segment.to_block + 1)
        return await fetcher.fetch(wanted, "history", avoid=avoid)

    return fetch
