"""What is covered in, the grid segments that are missing out: the history lane of an ingester."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from infra.roles.ingest_head import check_final
from infra.source import ChainSource
from ingest.backfill import (
    Backfill,
    BackfillProgress,
    SegmentRange,
    receipts_source,
    together_source,
)
from ingest.blockpace import BlockPace
from ingest.checkpoint import Checkpoint
from ingest.coverage import Coverage
from ingest.preflight import Preflight, preflight
from ingest.providers import ProviderPool
from ingest.publish import Sink, segment_envelopes
from schemas.segments import BlockRef

log = structlog.get_logger(__name__)

PAUSE_BLOCK_TIMES = 4.0
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 30.0
"""Bounds on the time between two looks at what has become final."""


class HistoryJob:
    """Sends every final grid segment that nobody has sent, and goes on as more become final.

    What becomes final while it runs is mostly covered by the head lane: such a segment is sent
    only when it is still missing the second time that it is looked at.

    Parameters
    ----------
    source, pool
        Where blocks come from.
    sink
        Where envelopes go.
    checkpoint
        What is covered.
    first, last
        Blocks that are wanted; `last` None for all.
    blocks_per_second_max
        How fast, at most; None for no bound.
    sleep
        Injected for tests.
    """

    def __init__(
        self,
        source: ChainSource,
        pool: ProviderPool,
        sink: Sink,
        checkpoint: Checkpoint,
        first: int,
        last: int | None,
        *,
        blocks_per_second_max: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.progress = BackfillProgress()
        self.first = source.facts.segment_start(first)
        """The first block of the first segment."""
        self.end = -1
        """The last block of the last segment that was due so far; below `first` for none."""
        self._last = last
        self._source, self._pool, self._sink = source, pool, sink
        self._facts, self._checkpoint = source.facts, checkpoint
        self._pace = BlockPace(blocks_per_second_max)
        self._sleep = sleep
        self._sent = Coverage()

    async def run(self, said: Preflight) -> None:
        """Send what is missing, until cancelled.

        Raises
        ------
        FinalizedReplaced, EndpointsBehind
            The endpoints no longer have the block that was final before.
        HeadraceError
            A segment could not be had.
        """
        due = self.missing(said)
        while True:
            if due:
                known = (
                    {} if said.finalized is None else {said.finalized.number: said.finalized.hash}
                )
                await self._send(due, known)
            seen = set(self.missing(said))
            await self._sleep(self._pause_seconds())
            final = said.finalized
            said = await preflight(self._pool, self._facts, receipts=False)
            if final is not None and said.finalized != final:
                await check_final(self._pool, BlockRef(final.number, final.hash))
            due = [segment for segment in self.missing(said) if segment in seen]

    def missing(self, said: Preflight) -> list[SegmentRange]:
        """Whole final segments that are neither covered nor sent by this job."""
        size = self._facts.segment_blocks
        final = -1 if said.finalized is None else said.finalized.number
        end = self._facts.segment_start(final + 1) - 1
        if self._last is not None:
            end = min(end, self._facts.segment_start(self._last) + size - 1)
        self.end = max(self.end, end)
        coverage = self._checkpoint.coverage()
        for span in self._sent.spans:
            coverage.add(span.from_block, span.to_block)
        return list(coverage.missing(self.first, end, size))

    async def _send(self, due: Sequence[SegmentRange], known: dict[int, bytes]) -> None:
        fetcher = self._source.fetcher(self._pool, self._source.settings.verify_history)
        alone, together = receipts_source(fetcher), together_source(fetcher)
        backfill = Backfill(self._pool, alone, known, together, progress=self.progress)
        log.info("history_started", from_block=due[0].from_block, to_block=due[-1].to_block)
        async with contextlib.aclosing(backfill.run(due)) as segments:
            async for built in segments:
                await self._pace.wait(built.to_block - built.from_block + 1)
                for envelope in segment_envelopes(built, self._facts.segment_blocks):
                    await self._sink.put(envelope)
                self._sent.add(built.from_block, built.to_block)
        log.info("history_sent", from_block=due[0].from_block, to_block=due[-1].to_block)

    def _pause_seconds(self) -> float:
        pause = PAUSE_BLOCK_TIMES * self._facts.block_time_seconds
        return min(max(pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
