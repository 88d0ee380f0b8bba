"""What the reorg agent knows in, the head's headers and blocks out: an ingester's head lane.

The reorg agent starts, where it knows nothing, at the first block that it is told is final; where
it knows a chain, that chain goes on. So before the head is followed, two things are told: the block
below the head lane, as final (the anchor); and every header from the newest block that the agent
calls final up to the anchor. Blocks that were visible and have been replaced while no ingester
ran then leave by an ordinary reorg, and what is above the former head comes as one long extension.
"""

from __future__ import annotations

import asyncio

import structlog

from infra.source import ChainSource
from ingest.head import HeadFollower
from ingest.head_answers import ask_until_confirmed
from ingest.headwalk import linked_headers
from ingest.headwindow import HeadHeader
from ingest.preflight import Preflight
from ingest.providers import ProviderPool
from ingest.publish import Sink, finality_envelope, head_envelope
from schemas.errors_canon import ReorgBelowFinalized
from schemas.errors_ingest import EndpointsBehind
from schemas.errors_ingest_role import FinalizedReplaced, HeadBridgeBroken, HeadBridgeTooLong
from schemas.segments import BlockRef, FinalityAdvanced, HeadObserved

log = structlog.get_logger(__name__)

GENESIS_PARENT = HeadHeader(-1, bytes(32), bytes(32))
"""What the head lane stands on where it begins with block 0."""
HEADERS_MAX = 1_000
"""Headers of the bridge that are fetched before they are sent."""
STEP_BLOCKS = 10_000
"""After so many headers the agent is told to take them as its head, and as final: it keeps only
so many beside its chain."""


async def check_final(pool: ProviderPool, told: BlockRef) -> None:
    """Ask every endpoint for the newest block that is final in the cluster.

    Raises
    ------
    FinalizedReplaced
        More endpoints deny it than confirm it.
    EndpointsBehind
        No endpoint's head is as high.
    """
    if told.number < 0:
        return
    votes = await ask_until_confirmed(pool, HeadHeader(told.number, told.hash, b""))
    if votes.replaced:
        raise FinalizedReplaced(number=told.number)
    if votes.beyond:
        raise EndpointsBehind(endpoints=votes.beyond, number=told.number)


class HeadJob:
    """Follows the head of one chain.

    Parameters
    ----------
    source, pool
        Where blocks come from.
    sink
        Where envelopes go.
    told
        The newest block that the reorg agent calls final; None where it knows nothing.
    """

    def __init__(
        self, source: ChainSource, pool: ProviderPool, sink: Sink, told: BlockRef | None
    ) -> None:
        self.follower: HeadFollower | None = None
        self._source, self._pool, self._sink, self._told = source, pool, sink, told
        self._facts = source.facts

    async def run(self, said: Preflight) -> None:
        """Follow the head until cancelled.

        Raises
        ------
        FinalizedReplaced, HeadBridgeTooLong, HeadBridgeBroken
        HeadraceError
            A Permanent one.
        """
        finalized = said.finalized.number if said.finalized is not None else -1
        boundary = self._facts.segment_start(finalized + 1)
        anchor = GENESIS_PARENT
        if boundary > 0:
            anchor = (await linked_headers(self._pool, [boundary - 1]))[0]
        await self._tell_final(anchor)
        if self._told is not None and self._told.number < anchor.number:
            await self._bridge(self._told, anchor.number)
        fetcher = self._source.fetcher(self._pool, self._source.settings.verify_head)
        chain_id = self._source.chain_id
        self.follower = HeadFollower(fetcher, self._facts, chain_id, [anchor], self._sink)
        log.info("head_started", from_block=boundary)
        try:
            await self.follower.run()
        except ReorgBelowFinalized as error:
            # Its remedy is for a data directory: a cluster has no rewind.
            raise FinalizedReplaced(number=error.data["finalized"]) from error

    async def _bridge(self, told: BlockRef, to_block: int) -> None:
        """Tell the headers from the block that was told as final up to `to_block`."""
        limits, count = self._pool.limits, to_block - told.number
        if count > limits.head_bridge_blocks_max:
            raise HeadBridgeTooLong(
                blocks=count,
                number=told.number,
                boundary=to_block,
                blocks_max=limits.head_bridge_blocks_max,
            )
        log.info("head_bridged", from_block=told.number, to_block=to_block)
        below = told
        for start in range(told.number, to_block, HEADERS_MAX):
            last = min(start + HEADERS_MAX, to_block)
            for header in await self._linked(below, last):
                step = (header.number - told.number) % STEP_BLOCKS == 0
                await self._tell(header, is_head=step)
                if step:
                    await self._tell_final(header)
                below = BlockRef(header.number, header.hash)

    async def _linked(self, below: BlockRef, last: int) -> list[HeadHeader]:
        """The headers above a block up to `last`."""
        numbers = range(max(0, below.number), last + 1)
        first: HeadHeader | None = None
        attempts = self._pool.limits.retry_attempts_max
        for attempt in range(attempts):
            headers = await linked_headers(self._pool, numbers)
            first = headers[0] if below.number >= 0 else GENESIS_PARENT
            if first.hash == below.hash and len(headers) == len(numbers):
                return headers[1:] if below.number >= 0 else headers
            await asyncio.sleep(self._pool.backoff_seconds(attempt))
        if first is not None and first.hash != below.hash:
            raise FinalizedReplaced(number=below.number)
        raise HeadBridgeBroken(number=below.number, attempts=attempts)

    async def _tell(self, header: HeadHeader, *, is_head: bool) -> None:
        observed = HeadObserved(
            chain_id=self._source.chain_id,
            number=header.number,
            hash=header.hash,
            parent_hash=header.parent_hash,
            time=header.time,
            observed_at_ms=self._pool.now_ms(),
            provider="bridge",
            is_head=is_head,
        )
        await self._sink.put(head_envelope(observed))

    async def _tell_final(self, header: HeadHeader) -> None:
        final = FinalityAdvanced(
            self._source.chain_id, "finalized", header.number, header.hash, self._pool.now_ms()
        )
        await self._sink.put(finality_envelope(final))
