"""Requests as they come in, the segments that they name out once more: an ingester's third job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from infra.roles.topic_reader import Read
from infra.source import ChainSource
from ingest.acknowledged import AcknowledgedSink
from ingest.checkpoint import Checkpoint
from ingest.preflight import preflight
from ingest.providers import ProviderPool
from ingest.publish import Built, segment_envelopes
from ingest.requests import plan_fetches
from schemas.codec import UnknownMessage, decode_segment_wanted
from schemas.errors import HeadraceError
from schemas.segments import Lane, SegmentWanted

log = structlog.get_logger(__name__)

AT_ONCE_MAX = 4
"""Requests that are served at once."""
AGE_SECONDS_MAX = 3600.0
"""A request older than this is not served: whoever asked has asked again, or has given up."""
NETWORK_CODES = "HR-2"
"""Failures to fetch: whoever asked sees that nothing came, and asks again."""

Poll = Callable[[float], Sequence[Read]]
"""Messages of the topic that have come, after so many seconds at most; runs in a thread."""


class RequestJob:
    """Serves the requests for one chain: whole segments by the history lane, others by the head.

    Parameters
    ----------
    source, pool
        Where blocks come from.
    sinks
        The sink of each lane that this process serves.
    checkpoint
        Told which requests are done.
    poll
        See `Poll`.
    """

    def __init__(
        self,
        source: ChainSource,
        pool: ProviderPool,
        sinks: dict[Lane, AcknowledgedSink],
        checkpoint: Checkpoint,
        poll: Poll,
    ) -> None:
        self.served = 0
        """Requests that were served."""
        self._source, self._pool, self._sinks = source, pool, sinks
        self._checkpoint, self._poll = checkpoint, poll
        self._open: dict[int, asyncio.Task[None]] = {}
        self._next = checkpoint.requests_offset

    def served_to(self, offset: int) -> bool:
        """Whether every request below an offset was served, or was none that could be."""
        return min(self._open, default=self._next) >= offset

    async def run(self, seconds: float = 0.5) -> None:
        """Serve until cancelled.

        Raises
        ------
        HeadraceError
            The brokers failed.
        """
        try:
            while True:
                for message in await asyncio.to_thread(self._poll, seconds):
                    while len(self._open) >= AT_ONCE_MAX:
                        await self._settle()
                    self._next = message.offset + 1
                    self._open[message.offset] = asyncio.create_task(self._take(message))
                if self._open:
                    await self._settle(wait=False)
        finally:
            for task in self._open.values():
                task.cancel()
            await asyncio.gather(*self._open.values(), return_exceptions=True)

    async def _settle(self, *, wait: bool = True) -> None:
        """Let go of what is done; what is below all that is under way is done for good."""
        if wait:
            await asyncio.wait(self._open.values(), return_when=asyncio.FIRST_COMPLETED)
        for offset in [offset for offset, task in self._open.items() if task.done()]:
            self._open.pop(offset).result()
        self._checkpoint.took_request(min(self._open, default=self._next))

    async def _take(self, message: Read) -> None:
        try:
            wanted = decode_segment_wanted(message.envelope.value)
        except UnknownMessage as error:
            log.warning("request_unreadable", offset=message.offset, code=error.code)
            return
        age = self._pool.now_ms() / 1000 - wanted.requested_at_ms / 1000
        if wanted.chain_id != self._source.chain_id or age > AGE_SECONDS_MAX:
            return
        try:
            sent = await self._serve(wanted)
        except HeadraceError as error:
            if not error.code.startswith(NETWORK_CODES):
                raise
            log.warning("request_failed", request_id=wanted.request_id, code=error.code)
            return
        self.served += 1
        log.info(
            "request_served",
            request_id=wanted.request_id,
            from_block=wanted.from_block,
            to_block=wanted.to_block,
            reason=wanted.reason,
            segments=sent,
        )

    async def _serve(self, wanted: SegmentWanted) -> int:
        """Fetch and send what a request comes to; how many segments that was."""
        said = await preflight(self._pool, self._source.facts, receipts=False)
        finalized = -1 if said.finalized is None else said.finalized.number
        plan = plan_fetches(wanted, self._source.facts, finalized, said.head.number)
        sent = 0
        settings = self._source.settings
        if "history" in self._sinks:
            fetcher = self._source.fetcher(self._pool, settings.verify_history)
            for segment in plan.segments:
                blocks = range(segment.from_block, segment.to_block + 1)
                built = (await fetcher.fetch(blocks, "history")).built
                await self._send(built, "history", wanted.request_id)
                sent += 1
        if "head" in self._sinks:
            fetcher = self._source.fetcher(self._pool, settings.verify_head)
            for block in plan.blocks:
                built = (await fetcher.fetch([block], "head")).built
                await self._send(built, "head", wanted.request_id)
                sent += 1
        return sent

    async def _send(self, built: Built, lane: Lane, again: str) -> None:
        sink = self._sinks[lane]
        envelopes = segment_envelopes(built, self._source.facts.segment_blocks)
        sends: list[Awaitable[None]] = [sink.deliver(envelope, again) for envelope in envelopes]
        await asyncio.gather(*sends)
