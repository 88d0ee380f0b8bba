"""Follow the head of a chain: publish observed headers, finality and proven blocks.

One endpoint is followed at a time (the leader), by its WebSocket where it has one, with polling
beside it. Whoever fails, lags or lies is left for another. A new head is connected to what is
known by walking its parents back; every header goes out at once, ancestors first, and the blocks
follow as soon as they are fetched and proven. Each poll also asks for our newest final block: an
endpoint that lacks it is not followed (`ingest.endpoint_view`), and when more endpoints deny it
than confirm it, following ends. What else a reorg means is decided by the reorg agent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from ingest.bodies import BodyQueue
from ingest.endpoint import Endpoint
from ingest.endpoint_view import EndpointView
from ingest.head_answers import CALLS, TAGS, FinalityTag, HeadAnswer, ask_head, ask_votes
from ingest.headwalk import reader_of, refused_header, walk_back
from ingest.headwindow import HeadHeader, HeadWindow
from ingest.newheads import subscribe_heads
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool, Terms
from ingest.publish import Sink, finality_envelope, head_envelope
from schemas.chains import ChainFacts
from schemas.errors import HeadraceError, Transient
from schemas.errors_canon import ReorgBelowFinalized
from schemas.errors_ingest import FinalBlockDenied, HeadSilent
from schemas.segments import FinalityAdvanced, HeadObserved

log = structlog.get_logger(__name__)

POLLS_PER_BLOCK = 3
"""Polls in one block time while no WebSocket tells of heads."""
STALE_BLOCK_TIMES = 8.0
"""A leader that shows nothing new for so many block times is compared with the others."""
STALE_SECONDS_MIN = 5.0
"""But not sooner than this."""
SILENCE_CHECKS = 4
"""Times that silence is looked for within `head_silent_seconds`."""


@dataclass(frozen=True, slots=True)
class HeadProgress:
    """Where the head is, for the display."""

    head: HeadHeader | None
    """The newest head."""
    leader: str
    """Display name of the endpoint that is followed."""
    by_websocket: bool
    """Whether heads come by WebSocket at present."""
    heard_seconds_ago: float
    """Time since an endpoint last named a head that counts, this one or a new one."""
    bodies_waiting: int
    """Blocks that were announced and not yet published."""
    blocks_published: int
    """Blocks put into the sink."""
    logs_published: int
    """Logs in them."""
    silent: HeadSilent | None
    """Set when no endpoint has named a head for `head_silent_seconds`."""


class HeadFollower:
    """Follows the head of one chain until it is cancelled.

    Parameters
    ----------
    fetcher : ProvenFetcher
        Fetches and proves; its pool is asked for heads, too.
    chain : ChainFacts
        The chain.
    chain_id : int
        Its id.
    known : Iterable[HeadHeader]
        Headers of the unfinalised window whose blocks are stored; the lowest is final (the
        boundary to the history lane). They are not published again.
    sink : Sink
        Where envelopes go.
    """

    def __init__(
        self,
        fetcher: ProvenFetcher,
        chain: ChainFacts,
        chain_id: int,
        known: Iterable[HeadHeader],
        sink: Sink,
    ) -> None:
        self._pool: ProviderPool = fetcher.pool
        self._limits = fetcher.pool.limits
        self._chain = chain
        self._chain_id = chain_id
        self._window = HeadWindow(known)
        self._sink = sink
        self._read = reader_of(fetcher.build)
        self._bodies = BodyQueue(fetcher, chain, self._window, sink)
        self._leader: Endpoint | None = None
        self._head: HeadHeader | None = None
        self._by_websocket = False
        self._final = min(self._window.branch(self._window.tip().hash), key=lambda h: h.number)
        self._views: defaultdict[Endpoint, EndpointView] = defaultdict(EndpointView)
        self._told: dict[str, int] = {}
        self._heard_at = self._pool.clock()
        self._advanced_at = self._heard_at
        self._last_error = ""
        self._stepping = asyncio.Lock()

    async def run(self) -> None:
        """Follow the head until cancelled.

        Raises
        ------
        HeadraceError
            A Permanent one: all endpoints lie, a block cannot be proven, or the endpoints deny
            our final block (ReorgBelowFinalized).
        """
        parts = (
            self._follow_sockets(),
            self._follow_polls(),
            self._bodies.run(lambda: self._leader),
            self._warn_of_silence(),
        )
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def progress(self) -> HeadProgress:
        """Where the head is now."""
        head = self._head
        return HeadProgress(
            head=head,
            leader=self._leader.name if self._leader else "",
            by_websocket=self._by_websocket,
            heard_seconds_ago=self._pool.clock() - self._heard_at,
            bodies_waiting=len(self._bodies),
            blocks_published=self._bodies.published,
            logs_published=self._bodies.logs_published,
            silent=self._silence(),
        )

    # --- heads as they come -----------------------------------------------------------------

    async def _follow_sockets(self) -> None:
        """Keep a subscription to the leader, or to whoever offers one."""
        while True:
            leader = self._leader
            usable = [endpoint for endpoint in self._pool.usable() if self._holds(endpoint)]
            usable.sort(key=lambda endpoint: endpoint is not leader)
            for endpoint in usable:
                if self._leader is leader:
                    await self._follow_socket(endpoint, leader)
            same, limits = self._leader is leader, self._limits
            await asyncio.sleep(
                limits.websocket_retry_seconds if same else limits.head_poll_seconds_min
            )

    async def _follow_socket(self, endpoint: Endpoint, leader: Endpoint | None) -> None:
        """Follow one endpoint's announcements until they end or another leads."""
        heads = subscribe_heads(self._pool.session, endpoint.url, self._limits)
        try:
            async with aclosing(heads):
                async for header in heads:
                    if self._leader is not leader or endpoint not in self._pool.usable():
                        return
                    if header is None:
                        self._lead(endpoint)
                        leader, self._by_websocket = endpoint, True
                    else:
                        await self._hear_pushed(endpoint, self._read(header))
        except HeadraceError as error:
            endpoint.last_error = str(error)
            log.info("head_socket_closed", endpoint=endpoint.name, code=error.code)
        finally:
            self._by_websocket = False

    async def _hear_pushed(self, endpoint: Endpoint, header: HeadHeader) -> None:
        try:
            await self._hear(endpoint, header)
        except Transient as error:
            # The next poll names this head again, or one that has taken its place.
            log.info("head_not_connected", block=header.number, code=error.code)

    async def _follow_polls(self) -> None:
        failing = False
        while True:
            try:
                await self._poll()
                if failing:
                    self._bodies.ask_again()
                failing = False
            except Transient as error:
                failing, self._last_error = True, str(error)
                if self._silence() and (refused := refused_header(error)):
                    raise refused from None
            wait = self._poll_seconds()
            await asyncio.sleep(min(wait, self._limits.head_repeat_seconds) if failing else wait)

    def _poll_seconds(self) -> float:
        limits, block_time = self._limits, self._chain.block_time_seconds
        if self._by_websocket:
            longest = limits.head_watchdog_seconds
            return min(max(block_time, limits.finality_poll_seconds_min), longest)
        wait = max(block_time / POLLS_PER_BLOCK, limits.head_poll_seconds_min)
        return min(wait, limits.head_poll_seconds_max)

    async def _poll(self) -> None:
        """Ask the leader, or another in its place, for its head and for finality."""
        terms = Terms(
            "the latest block",
            calls=CALLS,
            prefer=self._leader,
            attempts_max=len(self._pool.endpoints),
            urgent=True,
            repeat_seconds=self._limits.head_repeat_seconds,
        )
        served = await self._pool.run(self._ask, terms)
        await self._take(served.endpoint, served.value)
        if self._pool.clock() - self._advanced_at > self._stale_seconds():
            await self._compare_leaders()

    async def _ask(self, endpoint: Endpoint) -> HeadAnswer:
        tags = TAGS if self._chain.finality == "tags" else ()
        return await ask_head(endpoint, self._final, self._head, tags, self._read)

    async def _take(self, endpoint: Endpoint, answer: HeadAnswer) -> bool:
        """Take an endpoint's answer to a poll, if it holds our final block; whether it does."""
        if not await self._holds_final(endpoint, answer):
            return False
        if self._leader is None or self._leader not in self._pool.usable():
            self._lead(endpoint)
        await self._hear(endpoint, answer.latest, gone=answer.gone)
        for kind, header in answer.tagged:
            await self._tell_final(kind, header)
        await self._finalize_by_depth()
        return True

    async def _holds_final(self, endpoint: Endpoint, answer: HeadAnswer) -> bool:
        """Whether an endpoint has our final block; ReorgBelowFinalized where most deny it."""
        endpoint.observe_head(answer.latest.number, self._pool.clock())
        held, final, now = self._holds(endpoint), answer.final, self._pool.clock()
        # Nothing is final yet where the window stands on the block before genesis.
        if final.number >= 0:
            self._views[endpoint] = self._views[endpoint].saw_final(answer.has_final, now)
        if self._holds(endpoint):
            return True
        has = "has another" if answer.has_final == "other" else "has no"
        head = answer.latest.number
        error = FinalBlockDenied(endpoint=endpoint.name, has=has, number=final.number, head=head)
        endpoint.last_error = self._last_error = str(error)
        if held:
            log.warning("head_final_denied", endpoint=endpoint.name, head=head, final=final.number)
        if self._views[endpoint].verdict(now, self._limits) == "denied":
            others = [other for other in self._pool.usable() if other is not endpoint]
            votes = await ask_votes(self._pool, final, others)
            if len(votes.denied) + 1 > len(votes.confirmed):
                below = max(0, final.number - 1)
                raise ReorgBelowFinalized(head=head, finalized=final.number, to_block=below)
            self._lead(votes.confirmed[0])
            if answer.has_final == "other":
                self._pool.quarantine_endpoint(endpoint, error)
        return False

    def _holds(self, endpoint: Endpoint) -> bool:
        return self._views[endpoint].verdict(self._pool.clock(), self._limits) == "held"

    def _stale_seconds(self) -> float:
        return max(STALE_SECONDS_MIN, STALE_BLOCK_TIMES * self._chain.block_time_seconds)

    async def _compare_leaders(self) -> None:
        """Where the leader shows nothing new, follow whoever is further."""
        self._advanced_at = self._pool.clock()
        for endpoint in self._pool.usable():
            if endpoint is self._leader:
                continue
            try:
                answer = (await self._pool.run_on(endpoint, self._ask, CALLS)).value
            except HeadraceError:
                continue
            further = self._head is None or answer.latest.number > self._head.number
            if further and await self._take(endpoint, answer):
                log.warning("head_leader_lags", endpoint=endpoint.name)
                self._lead(endpoint)

    def _lead(self, endpoint: Endpoint) -> None:
        if self._leader is not endpoint:
            self._leader = endpoint
            log.info("head_leader", endpoint=endpoint.name)

    def _silence(self) -> HeadSilent | None:
        """The warning that is due when no head that counts has come for long."""
        seconds = round(self._pool.clock() - self._heard_at)
        if seconds < self._limits.head_silent_seconds:
            return None
        return HeadSilent(seconds=seconds, last_error=self._last_error or "no answer yet")

    async def _warn_of_silence(self) -> None:
        while True:
            await asyncio.sleep(self._limits.head_silent_seconds / SILENCE_CHECKS)
            silent = self._silence()
            if silent is not None:
                log.warning("head_silent", code=silent.code, **silent.data)

    # --- what is told ---------------------------------------------------------------------------

    async def _hear(self, endpoint: Endpoint, header: HeadHeader, *, gone: bool = False) -> None:
        """Take an endpoint's head, and publish what is new in it.

        `gone` says that a poll found that the endpoint no longer has our head.
        """
        async with self._stepping:
            endpoint.observe_head(header.number, self._pool.clock())
            if not self._holds(endpoint):
                return
            self._heard_at = self._pool.clock()
            if header.number < self._final.number:
                return
            view = self._views[endpoint]
            former = (view.head or self._head or self._window.tip()).hash
            lower = self._window.is_ancestor(header.hash, former)
            view, new = view.saw_head(header, is_ancestor=lower, gone=gone, limits=self._limits)
            self._views[endpoint] = view
            if not new:
                return
            path = [header]
            if header.hash not in self._window:
                path = await walk_back(self._pool, self._window, header, endpoint, self._read)
            if self._contradicts_final(path):
                log.warning("head_not_on_final", endpoint=endpoint.name, head=header.number)
                return
            await self._tell(endpoint, path)
            self._views[endpoint] = self._views[endpoint].took(header)

    def _contradicts_final(self, path: list[HeadHeader]) -> bool:
        """Whether a branch leaves our chain below the newest final block."""
        final, lowest = self._final, path[0]
        if lowest.number <= final.number:
            return lowest.hash != final.hash
        shared = self._window.ancestor(lowest.parent_hash, final.number)
        return shared is not None and shared.hash != final.hash

    async def _tell(self, endpoint: Endpoint, path: list[HeadHeader]) -> None:
        """Put headers into the sink, ancestors first, and want the blocks of those not known."""
        now_ms = self._pool.now_ms()
        head = path[-1]
        if self._head is None or head.hash != self._head.hash:
            self._head, self._advanced_at = head, self._pool.clock()
            self._bodies.follow(head)
        for header in path:
            if header.hash not in self._window:
                self._window.add(header)
                self._bodies.add(header, now_ms)
            observed = HeadObserved(
                chain_id=self._chain_id,
                number=header.number,
                hash=header.hash,
                parent_hash=header.parent_hash,
                time=header.time,
                observed_at_ms=now_ms,
                provider=endpoint.name,
                is_head=header is head,
            )
            await self._sink.put(head_envelope(observed))

    async def _finalize_by_depth(self) -> None:
        """Where no tag says what is final: by depth, and genesis as soon as it is known."""
        if self._head is None:
            return
        by_depth = self._chain.finality == "depth"
        height = max(0, self._head.number - self._chain.finality_depth_blocks) if by_depth else 0
        if height > self._told.get("finalized", -1) and self._final.number < height:
            header = self._window.ancestor(self._head.hash, height)
            if header is not None:
                await self._tell_final("finalized", header)

    async def _tell_final(self, kind: FinalityTag, header: HeadHeader) -> None:
        """Publish a final block once it is known here; the window then begins at it."""
        if header.hash in self._window and header.number > self._told.get(kind, -1):
            self._told[kind] = header.number
            now_ms = self._pool.now_ms()
            advanced = FinalityAdvanced(self._chain_id, kind, header.number, header.hash, now_ms)
            await self._sink.put(finality_envelope(advanced))
            if kind == "finalized":
                self._final = header
        lowest, final = self._bodies.lowest(), self._final
        if final.number > self._window.floor and (lowest is None or lowest > final.number):
            self._window.finalize(final)
