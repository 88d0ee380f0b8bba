"""Missing grid segments in, proven segments out, in order: the history lane.

Segments are fetched concurrently within a window that is bounded in segments and in bytes. A
segment leaves the window when it and all before it are proven and its successor, where adjacent,
names its last block as parent: a false but self-consistent segment is found by its neighbours.
Light segments that are adjacent are fetched and proven together; whatever is the matter with one
of them, each is then fetched alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field

import structlog

from ingest.endpoint import Endpoint
from ingest.proven import Fetched, ProvenFetcher
from ingest.providers import ProviderPool
from ingest.publish import Built
from schemas.errors import HeadraceError
from schemas.errors_ingest import ChainBroken

log = structlog.get_logger(__name__)

SEGMENT_BYTES_GUESS = 1024 * 1024
"""What a segment's answers are taken to weigh before the first has come."""
GUESS_SHARE_NEW = 0.2
"""Share of the newest segment in the running guess."""
TOGETHER_BLOCKS_MAX = 40
"""Blocks of segments that are fetched together: as many calls as of few, larger segments."""
TOGETHER_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of their answers: proving heavy segments together would save nothing."""
ALONE_SEGMENTS = 100
"""Segments that are fetched alone after some could not be had together."""


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """A grid segment that is still missing."""

    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""


FetchSegment = Callable[[SegmentRange, set[Endpoint]], Awaitable[Fetched]]
"""Fetches one segment, from others than the given endpoints while there are any."""
FetchTogether = Callable[[Sequence[SegmentRange]], Awaitable[list[Fetched]]]
"""Fetches adjacent segments in one go, or fails."""


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
    task: asyncio.Task[list[Fetched | BaseException]]
    """One outcome a segment."""
    segments: int
    """How many are fetched together."""

    def weight_bytes(self, guess_bytes: int) -> int:
        """Bytes of the answers, or the guess while they are not there."""
        if not self.task.done() or self.task.cancelled():
            return guess_bytes * self.segments
        there = [one.size_bytes for one in self.task.result() if isinstance(one, Fetched)]
        return sum(there) + guess_bytes * (self.segments - len(there))


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
    fetch_together: FetchTogether | None = None
    """Fetches and proves adjacent segments in one go; None: the source cannot."""
    progress: BackfillProgress = field(default_factory=BackfillProgress)
    """Counts, for the display."""
    _guess_bytes: int = SEGMENT_BYTES_GUESS
    _alone: int = 0
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
        groups = self._groups(missing)
        known = dict(self.known_hashes)
        held: Fetched | None = None
        try:
            while True:
                self._fill(window, groups)
                if not window:
                    break
                if not window[0].task.done():
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                for outcome in window.popleft().task.result():
                    fetched = await self._link_to_known(self._good(outcome), known)
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

    def _groups(self, missing: Iterable[SegmentRange]) -> Iterator[list[SegmentRange]]:
        """The segments that are fetched together, each with what follows it while that is light."""
        group: list[SegmentRange] = []
        for segment in missing:
            if group and not self._join(group, segment):
                yield group
                group = []
            group.append(segment)
        if group:
            yield group

    def _join(self, group: Sequence[SegmentRange], segment: SegmentRange) -> bool:
        """Whether a segment is fetched together with those before it."""
        if self.fetch_together is None:
            return False
        if self._alone > 0:
            self._alone -= 1
            return False
        blocks = segment.to_block - group[0].from_block + 1
        return (
            segment.from_block == group[-1].to_block + 1
            and blocks <= TOGETHER_BLOCKS_MAX
            and self._guess_bytes * (len(group) + 1) <= TOGETHER_BYTES_MAX
        )

    def _fill(self, window: deque[_Slot], groups: Iterator[list[SegmentRange]]) -> None:
        """Start segments while the window has room; the oldest always may run."""
        limits = self.pool.limits
        # Two more than can be asked at once keep every place of the endpoints busy.
        busy_max = min(limits.window_segments_max, self.pool.capacity() + 2)
        unfinished = sum(not slot.task.done() for slot in window)
        count = sum(slot.segments for slot in window)
        weight = sum(slot.weight_bytes(self._guess_bytes) for slot in window)
        while count < limits.window_segments_max and unfinished < busy_max:
            if window and weight + self._guess_bytes > limits.in_flight_bytes_max:
                break
            group = next(groups, None)
            if group is None:
                break
            task = asyncio.ensure_future(self._fetch(group))
            task.add_done_callback(lambda _: self._changed.set())
            window.append(_Slot(task, len(group)))
            weight += self._guess_bytes * len(group)
            count += len(group)
            unfinished += 1
        self.progress.segments_in_window = count
        self.progress.bytes_in_window = weight

    async def _fetch(self, group: Sequence[SegmentRange]) -> list[Fetched | BaseException]:
        """Each segment of a group, or what was the matter with it."""
        if self.fetch_together is not None and len(group) > 1:
            try:
                return [*await self.fetch_together(group)]
            except HeadraceError as error:
                # Fetched alone, the segment at fault is told from the others, and who served it.
                self._alone = ALONE_SEGMENTS
                log.info("segments_fetched_singly", from_block=group[0].from_block, code=error.code)
        alone = (self.fetch(segment, set()) for segment in group)
        return await asyncio.gather(*alone, return_exceptions=True)

    def _good(self, outcome: Fetched | BaseException) -> Fetched:
        """A segment that is there, weighed for the guess; raises its error."""
        if isinstance(outcome, BaseException):
            raise outcome
        share = GUESS_SHARE_NEW
        guess = (1 - share) * self._guess_bytes + share * outcome.size_bytes
        self._guess_bytes = max(int(guess), 1)
        return outcome

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


def together_source(fetcher: ProvenFetcher) -> FetchTogether | None:
    """As `receipts_source`, for adjacent segments in one go; None where the fetcher cannot."""
    if fetcher.together is None:
        return None

    async def fetch(segments: Sequence[SegmentRange]) -> list[Fetched]:
        parts = [range(segment.from_block, segment.to_block + 1) for segment in segments]
        return await fetcher.fetch_together(parts)

    return fetch
