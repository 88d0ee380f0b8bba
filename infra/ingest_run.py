"""What is stored and what nodes have in, envelopes of what is missing out: ingest of one run.

History first: whole grid segments of final blocks, until none is missing. Then the head: every
block from the end of the last whole final segment on. Where a run begins with visible blocks that
were not final, and history now covers them, it first asks whether they are still canonical.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog

from infra.patience import patiently
from infra.source import ChainSource
from infra.storage import Storage
from infra.stored_chain import StoredChain
from ingest.backfill import (
    Backfill,
    BackfillProgress,
    SegmentRange,
    receipts_source,
    together_source,
)
from ingest.head import HeadFollower
from ingest.headwalk import linked_headers
from ingest.headwindow import HeadHeader
from ingest.preflight import Preflight, preflight
from ingest.providers import ProviderPool
from ingest.publish import Sink, segment_envelopes
from processors.fork import ForkState
from processors.reorg import from_blocks, snapshot
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon_row import CanonRow, Missing

log = structlog.get_logger(__name__)

GENESIS_PARENT = HeadHeader(-1, bytes(32), bytes(32))
"""What the head lane stands on where it begins with block 0."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a run is to make visible."""

    from_block: int
    """First block."""
    to_block: int | None
    """Last block; None follows the head."""


class IngestRun:
    """The ingest side of one run.

    Parameters
    ----------
    source, pool, storage, sink
        Where blocks come from, what is stored, where envelopes go.
    target
        What is wanted.
    begin_head
        Called with the head lane's fork state before its first envelope.
    tell_fork
        Takes a fork state for the publisher.
    visible
        The newest canon row.
    """

    def __init__(
        self,
        source: ChainSource,
        pool: ProviderPool,
        storage: Storage,
        sink: Sink,
        target: Target,
        *,
        begin_head: Callable[[ForkState], None],
        tell_fork: Callable[[ForkUpdate], None],
        visible: Callable[[], CanonRow | None],
    ) -> None:
        self.target = target
        self.history = BackfillProgress()
        self.history_to = -1
        self.follower: HeadFollower | None = None
        self.stored = StoredChain(pool, storage, visible)
        self._source, self._pool, self._storage, self._sink = source, pool, storage, sink
        self._begin_head, self._tell_fork, self._visible = begin_head, tell_fork, visible
        self._facts = source.facts
        self._sent_to = -1

    # --- history --------------------------------------------------------------------------------

    def history_end(self, finalized: int) -> int:
        """The last block of the last whole segment that is final and wanted; -1 for none.

        None is wanted where the run begins above: a start near the head is the head lane's alone.
        """
        end = self._facts.segment_start(finalized + 1) - 1
        if self.target.to_block is not None:
            size = self._facts.segment_blocks
            end = min(end, self._facts.segment_start(self.target.to_block) + size - 1)
        return end if end >= self._history_start() else -1

    def _history_start(self) -> int:
        """The first block of the grid that is wanted, or visible already."""
        row = self._visible()
        lowest = self.target.from_block if row is None else min(self.target.from_block, row.floor)
        return self._facts.segment_start(lowest)

    async def run_history(self, start: Preflight) -> Preflight:
        """Fetch every missing segment of final blocks, until finality brings no further one.

        Returns
        -------
        Preflight
            What the endpoints said last.

        Raises
        ------
        HeadraceError
            A segment could not be had.
        """
        said = start
        while True:
            await self.stored.check()
            final = said.finalized
            end = self.history_end(-1 if final is None else final.number)
            missing = list(self.missing(end))
            if not missing:
                return said
            await self._reconcile(missing[0].from_block, end)
            known = {} if final is None else {final.number: final.hash}
            await self.fetch_segments(missing, known)
            self._sent_to = max(self._sent_to, end)
            said = await preflight(self._pool, self._facts, receipts=False)

    def missing(self, end: int) -> Iterator[SegmentRange]:
        """Grid segments up to `end` that are neither visible and final nor sent by this run."""
        size = self._facts.segment_blocks
        first = self._history_start()
        settled = range(0)
        row = self._visible()
        if row is not None:
            floor = self._facts.segment_start(row.floor)
            final = row.finalized.number if row.finalized else floor - 1
            settled = range(floor, min(final, row.head.number) + 1)
        for start in range(first, end + 1, size):
            last = start + size - 1
            if start > self._sent_to and not (start in settled and last in settled):
                yield SegmentRange(start, last)

    async def fetch_segments(
        self, missing: list[SegmentRange], known_hashes: Mapping[int, bytes]
    ) -> None:
        """Fetch segments and put their envelopes into the sink, in order.

        Parameters
        ----------
        missing
            Grid segments, ascending.
        known_hashes
            Hashes that blocks of them must have, by height.
        """
        level = self._source.settings.verify_history
        fetcher = self._source.fetcher(self._pool, level)
        backfill = Backfill(
            self._pool,
            receipts_source(fetcher),
            known_hashes,
            together_source(fetcher),
            progress=self.history,
        )
        self.history_to = max(self.history_to, missing[-1].to_block)
        log.info("history_started", from_block=missing[0].from_block, to_block=self.history_to)
        async with contextlib.aclosing(backfill.run(missing)) as segments:
            async for built in segments:
                for envelope in segment_envelopes(built, self._facts.segment_blocks):
                    await self._sink.put(envelope)

    async def refetch(self, missing: Missing) -> None:
        """Fetch a segment whose load does not count, by name, once more."""
        log.warning("segment_missing", stream=missing.stream, from_block=missing.from_block)
        whole = missing.to_block - missing.from_block + 1 == self._facts.segment_blocks
        settings = self._source.settings
        if whole:
            fetcher = self._source.fetcher(self._pool, settings.verify_history)
            wanted = range(missing.from_block, missing.to_block + 1)
            fetched = await fetcher.fetch(wanted, "history")
        else:
            fetcher = self._source.fetcher(self._pool, settings.verify_head)
            block = missing.from_block if missing.last_hash is None else missing.last_hash
            fetched = await fetcher.fetch([block], "head")
        for envelope in segment_envelopes(fetched.built, self._facts.segment_blocks):
            await self._sink.put(envelope)

    async def _reconcile(self, first: int, end: int) -> None:
        """Where history covers visible blocks that were not final, say which are canonical.

        The visible blocks from the newest one known to be final on are compared with the
        endpoints' chain, which is final to `end`. The publisher hears of that chain, so that
        what was replaced meanwhile leaves in one step, as a reorg.
        """
        row = self._visible()
        if row is None or row.head.number < first:
            return
        settled = row.finalized.number if row.finalized else row.floor
        headers = await linked_headers(self._pool, list(range(settled, row.head.number + 1)))
        chain = [BlockRef(header.number, header.hash) for header in headers]
        if not chain:
            return
        if row.finalized is not None and chain[0] != row.finalized:
            raise await self.stored.contradiction(row, settled)
        if chain[-1] != row.head:
            log.warning("visible_blocks_replaced", head=row.head.number, final=settled)
            shared = await self._shared_of(chain)
            chain = chain[: max(end, shared) - settled + 1]
        limits = self._source.settings.limits.fork
        state = from_blocks(self._source.chain_id, chain[0], chain[1:], limits)
        told = snapshot(state, self._pool.now_ms())
        self._tell_fork(told)
        final = next(ref for ref in reversed(chain) if ref.number <= max(end, settled))
        self._tell_fork(replace(told, finalized=final, safe=final, added=()))

    async def _shared_of(self, chain: list[BlockRef]) -> int:
        """The last block of a chain that is visible; the chain's first is."""
        read = partial(self._storage.visible_headers, chain[0].number, chain[-1].number)
        visible = {header.hash for header in await asyncio.to_thread(patiently, read)}
        return max((ref.number for ref in chain if ref.hash in visible), default=chain[0].number)

    # --- head -----------------------------------------------------------------------------------

    async def follow_head(self, said: Preflight) -> None:
        """Follow the head until cancelled.

        Raises
        ------
        HeadraceError
            A Permanent one.
        """
        finalized = said.finalized.number if said.finalized is not None else -1
        boundary = self._facts.segment_start(finalized + 1)
        known = await self._known(boundary)
        chain = [BlockRef(header.number, header.hash) for header in known]
        limits = self._source.settings.limits.fork
        state = from_blocks(self._source.chain_id, chain[0], chain[1:], limits)
        self._begin_head(state)
        fetcher = self._source.fetcher(self._pool, self._source.settings.verify_head)
        self.follower = HeadFollower(fetcher, self._facts, self._source.chain_id, known, self._sink)
        log.info("head_started", from_block=boundary)
        await self.follower.run()

    async def _known(self, boundary: int) -> list[HeadHeader]:
        """The block below the head lane, which is final, and the visible blocks above it."""
        read = partial(self._storage.visible_headers, boundary - 1)
        visible = await asyncio.to_thread(patiently, read)
        if boundary == 0:
            anchor = GENESIS_PARENT
        elif visible and visible[0].number == boundary - 1:
            anchor = visible.pop(0)
        else:
            anchor = (await linked_headers(self._pool, [boundary - 1]))[0]
        known = [anchor]
        for header in visible:
            if header.parent_hash != known[-1].hash:
                break
            known.append(header)
        return known
