"""Announced headers in, proven single-block segments out: the blocks of the head lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ingest.endpoint import Endpoint
from ingest.headwindow import HeadHeader, HeadWindow
from ingest.proven import ProvenFetcher
from ingest.publish import Sink, segment_envelopes
from schemas.chains import ChainFacts
from schemas.errors import Permanent

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Wanted:
    header: HeadHeader
    observed_at_ms: int
    due: float = 0.0
    failures: int = 0


class BodyQueue:
    """Fetches the blocks of announced headers, several at once, until each is published.

    A block that nobody serves is asked for again as long as it is on the branch of the newest
    head; once it has left that branch it is dropped.
    """

    def __init__(
        self, fetcher: ProvenFetcher, chain: ChainFacts, window: HeadWindow, sink: Sink
    ) -> None:
        self.published = 0
        self.logs_published = 0
        self._fetcher = fetcher
        self._limits = fetcher.pool.limits
        self._chain = chain
        self._window = window
        self._sink = sink
        self._wanted: dict[bytes, _Wanted] = {}
        self._running: dict[asyncio.Task[None], list[_Wanted]] = {}
        self._changed = asyncio.Event()
        self._head: HeadHeader | None = None

    def __len__(self) -> int:
        """Blocks announced and not yet published."""
        return len(self._wanted) + sum(len(group) for group in self._running.values())

    def add(self, header: HeadHeader, observed_at_ms: int) -> None:
        """Want the block of a header."""
        self._wanted[header.hash] = _Wanted(header, observed_at_ms)
        self._changed.set()

    def follow(self, head: HeadHeader) -> None:
        """Name the newest head: blocks off its branch are not asked for again."""
        self._head = head

    def ask_again(self) -> None:
        """Ask at once for the blocks that wait for a retry."""
        for wanted in self._wanted.values():
            wanted.due = 0.0
        self._changed.set()

    def lowest(self) -> int | None:
        """Height of the lowest block not yet published."""
        waiting = [*self._wanted.values(), *(w for group in self._running.values() for w in group)]
        return min((wanted.header.number for wanted in waiting), default=None)

    async def run(self, leader: Callable[[], Endpoint | None]) -> None:
        """Fetch and publish until cancelled.

        Parameters
        ----------
        leader : Callable[[], Endpoint | None]
            Tells who is asked first.

        Raises
        ------
        HeadraceError
            A block cannot be proven, or all endpoints lie.
        """
        try:
            while True:
                self._changed.clear()
                self._start_due(leader())
                await self._wait()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _wait(self) -> None:
        """Wait for a new header, an answer, or the time of the next retry."""
        now = self._fetcher.pool.clock()
        places = self._limits.head_bodies_in_flight_max - len(self._running)
        soonest = min((w.due for w in self._wanted.values()), default=None) if places > 0 else None
        try:
            async with asyncio.timeout(None if soonest is None else max(0.0, soonest - now)):
                await self._changed.wait()
        except TimeoutError:
            return
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            task.result()

    def _start_due(self, leader: Endpoint | None) -> None:
        now = self._fetcher.pool.clock()
        due = [wanted for wanted in self._wanted.values() if wanted.due <= now]
        due.sort(key=lambda wanted: wanted.header.number)
        places = self._limits.head_bodies_in_flight_max - len(self._running)
        # A block alone is soonest there; only when catching up do several share a request.
        size = min(self._limits.head_blocks_per_request_max, -(-len(due) // max(places, 1)))
        for at in range(0, len(due), max(size, 1)):
            if places <= 0:
                break
            group = due[at : at + size]
            for wanted in group:
                del self._wanted[wanted.header.hash]
            task = asyncio.ensure_future(self._publish(group, leader))
            task.add_done_callback(lambda _: self._changed.set())
            self._running[task] = group
            places -= 1

    async def _publish(self, group: list[_Wanted], leader: Endpoint | None) -> None:
        fetched = await self._fetcher.fetch_each(
            [(wanted.header.hash, wanted.observed_at_ms) for wanted in group], prefer=leader
        )
        for wanted, outcome in zip(group, fetched, strict=True):
            if isinstance(outcome, Permanent):
                raise outcome
            if isinstance(outcome, Exception):
                self._retry(wanted, outcome.code)
                continue
            for envelope in segment_envelopes(outcome.built, self._chain.segment_blocks):
                await self._sink.put(envelope)
            self.published += 1
            self.logs_published += outcome.built.logs.logs.rows

    def _retry(self, wanted: _Wanted, code: str) -> None:
        header = wanted.header
        head = self._head
        on_branch = head is None or (
            header.hash == head.hash or self._window.is_ancestor(header.hash, head.hash)
        )
        log.warning("head_block_not_served", block=header.number, code=code, asked_again=on_branch)
        if not on_branch:
            return
        wanted.failures += 1
        pool = self._fetcher.pool
        wanted.due = pool.clock() + pool.backoff_seconds(wanted.failures)
        self._wanted[header.hash] = wanted
