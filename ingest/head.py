"""An endpoint's heads in, observed headers, finality and proven single-block segments out.

One endpoint's view is followed at a time (the leader), by its WebSocket where it has one, with
polling beside it. Whoever fails, lags or lies is left for another. A new head is connected to what
is known by walking its parents back; every header goes out at once, ancestors first, and the
blocks follow as soon as they are fetched and proven. What a reorg means is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import structlog

from ingest.bodies import BodyQueue
from ingest.endpoint import Endpoint
from ingest.fetch import NULL
from ingest.headwalk import HeaderReader, reader_of, walk_back
from ingest.headwindow import HeadHeader, HeadWindow
from ingest.newheads import subscribe_heads
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool, Terms
from ingest.publish import Sink, finality_envelope, head_envelope
from ingest.rpc import Outcome, RpcCall
from schemas.chains import ChainFacts
from schemas.errors import HeadraceError, Transient
from schemas.errors_ingest import BlockNotServed, HeadSilent
from schemas.segments import FinalityAdvanced, HeadObserved

log = structlog.get_logger(__name__)

POLLS_PER_BLOCK = 3
"""Polls in one block time while no WebSocket tells of heads."""
STALE_BLOCK_TIMES = 8.0
"""A leader that shows nothing new for so many block times is compared with the others."""
STALE_SECONDS_MIN = 5.0
"""But not sooner than this."""


@dataclass(frozen=True, slots=True)
class HeadProgress:
    """Where the head is, for the display."""

    head: HeadHeader | None
    """The newest head."""
    safe: int | None
    """Height of the newest safe block told."""
    finalized: int | None
    """Height of the newest final block told."""
    leader: str
    """Display name of the endpoint that is followed."""
    by_websocket: bool
    """Whether heads come by WebSocket at present."""
    observed_at_ms: int
    """When the head was seen, unix milliseconds."""
    bodies_waiting: int
    """Blocks that were announced and not yet published."""
    blocks_published: int
    """Blocks put into the sink."""
    logs_published: int
    """Logs in them."""
    silent: HeadSilent | None
    """Set while no endpoint names a head."""


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
    read : HeaderReader, optional
        Reads a header from JSON, and proves its hash; as `fetcher.build` does, if not given.
    """

    def __init__(
        self,
        fetcher: ProvenFetcher,
        chain: ChainFacts,
        chain_id: int,
        known: Iterable[HeadHeader],
        sink: Sink,
        read: HeaderReader | None = None,
    ) -> None:
        self._pool: ProviderPool = fetcher.pool
        self._limits = fetcher.pool.limits
        self._chain = chain
        self._chain_id = chain_id
        self._window = HeadWindow(known)
        self._sink = sink
        self._read = read or reader_of(fetcher.build)
        self._bodies = BodyQueue(fetcher, chain, self._window, sink)
        self._leader: Endpoint | None = None
        self._head: HeadHeader | None = None
        self._observed_at_ms = 0
        self._by_websocket = False
        self._silent: HeadSilent | None = None
        self._final: HeadHeader | None = None
        self._words: dict[Endpoint, bytes] = {}
        self._doubts: dict[Endpoint, tuple[bytes, int]] = {}
        self._told: dict[str, int] = {}
        self._heard_at = self._pool.clock()
        self._advanced_at = self._heard_at
        self._stepping = asyncio.Lock()

    async def run(self) -> None:
        """Follow the head until cancelled.

        Raises
        ------
        HeadraceError
            A Permanent one: all endpoints lie, or a block cannot be proven.
        """
        parts = (self._follow_sockets(), self._follow_polls(), self._bodies.run(self._get_leader))
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _get_leader(self) -> Endpoint | None:
        return self._leader

    def progress(self) -> HeadProgress:
        """Where the head is now."""
        head = self._head
        return HeadProgress(
            head=head,
            safe=self._told.get("safe"),
            finalized=self._told.get("finalized"),
            leader=self._leader.name if self._leader else "",
            by_websocket=self._by_websocket,
            observed_at_ms=self._observed_at_ms,
            bodies_waiting=len(self._bodies),
            blocks_published=self._bodies.published,
            logs_published=self._bodies.logs_published,
            silent=self._silent,
        )

    # --- heads as they come -----------------------------------------------------------------

    async def _follow_sockets(self) -> None:
        """Keep a subscription to the leader, or to whoever offers one."""
        while True:
            leader = self._leader
            usable = self._pool.usable()
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
            await self._hear(endpoint, header, pushed=True)
        except Transient as error:
            # The next poll names this head again, or one that has taken its place.
            log.info("head_not_connected", block=header.number, code=error.code)

    async def _follow_polls(self) -> None:
        while True:
            try:
                await self._poll()
            except Transient as error:
                self._note_silence(error)
            await asyncio.sleep(self._poll_seconds())

    def _poll_seconds(self) -> float:
        limits, block_time = self._limits, self._chain.block_time_seconds
        if self._by_websocket:
            longest = limits.head_watchdog_seconds
            return min(max(block_time, limits.finality_poll_seconds_min), longest)
        wait = max(block_time / POLLS_PER_BLOCK, limits.head_poll_seconds_min)
        return min(wait, limits.head_poll_seconds_max)

    async def _poll(self) -> None:
        """Ask the leader, or another in its place, for its head and for finality."""
        head = self._head
        tags = ["safe", "finalized"] if self._chain.finality == "tags" else []
        calls = [RpcCall("eth_getBlockByNumber", (tag, False)) for tag in ["latest", *tags]]
        if head is not None:
            calls.append(RpcCall("eth_getBlockByNumber", (hex(head.number), False)))
        terms = Terms("the latest block", calls=len(calls), prefer=self._leader)
        served = await self._pool.run(lambda endpoint: self._ask_heads(endpoint, calls), terms)
        (latest, outcomes), endpoint = served.value, served.endpoint
        gone = head is not None and self._is_gone(head, outcomes[-1])
        if self._leader is None or self._leader not in self._pool.usable():
            self._lead(endpoint)
        await self._hear(endpoint, latest, gone=gone)
        for kind, outcome in zip(tags, outcomes, strict=False):
            final = self._read_or_none(outcome)
            if final is not None:
                await self._tell_final("safe" if kind == "safe" else "finalized", final)
        await self._finalize_by_depth()
        if self._pool.clock() - self._advanced_at > self._stale_seconds():
            await self._compare_leaders()

    async def _ask_heads(
        self, endpoint: Endpoint, calls: list[RpcCall]
    ) -> tuple[HeadHeader, list[Outcome]]:
        """The header that answers the first call, and the outcomes of the others."""
        latest, *others = await endpoint.ask(calls)
        if isinstance(latest, HeadraceError):
            raise latest
        if latest == NULL:
            raise BlockNotServed(endpoint=endpoint.name, block="latest")
        return self._read(latest), others

    def _read_or_none(self, outcome: Outcome) -> HeadHeader | None:
        """The header of an outcome; None where it is null, an error, or not provable."""
        if isinstance(outcome, HeadraceError) or outcome == NULL:
            return None
        try:
            return self._read(outcome)
        except HeadraceError as error:
            log.info("head_header_refused", code=error.code)
            return None

    def _is_gone(self, head: HeadHeader, outcome: Outcome) -> bool:
        """Whether the node no longer has `head` on its chain."""
        if outcome == NULL:
            return True
        found = self._read_or_none(outcome)
        return found is not None and found.hash != head.hash

    def _stale_seconds(self) -> float:
        return max(STALE_SECONDS_MIN, STALE_BLOCK_TIMES * self._chain.block_time_seconds)

    async def _compare_leaders(self) -> None:
        """Where the leader shows nothing new, follow whoever is further."""
        self._advanced_at = self._pool.clock()
        for endpoint in self._pool.usable():
            if endpoint is self._leader:
                continue
            calls = [RpcCall("eth_getBlockByNumber", ("latest", False))]
            try:
                header, _ = await self._ask_heads(endpoint, calls)
            except HeadraceError as error:
                endpoint.last_error = str(error)
                continue
            if self._head is None or header.number > self._head.number:
                log.warning("head_leader_lags", endpoint=endpoint.name, head=header.number)
                self._lead(endpoint)
                await self._hear(endpoint, header)

    def _lead(self, endpoint: Endpoint) -> None:
        if self._leader is not endpoint:
            self._leader = endpoint
            log.info("head_leader", endpoint=endpoint.name)

    def _note_silence(self, error: HeadraceError) -> None:
        seconds = self._pool.clock() - self._heard_at
        if seconds > self._limits.head_silent_seconds:
            self._silent = HeadSilent(seconds=round(seconds), last_error=str(error))
            log.warning("head_silent", seconds=round(seconds), code=error.code)

    # --- what is told ---------------------------------------------------------------------------

    async def _hear(
        self, endpoint: Endpoint, header: HeadHeader, *, pushed: bool = False, gone: bool = False
    ) -> None:
        """Take an endpoint's word for its head, and tell what is new in it.

        An ancestor of the head it named before is mostly a gateway's node that lags; it is told
        only where polls have said several times that the node no longer has the former head.
        """
        async with self._stepping:
            self._heard_at, self._silent = self._pool.clock(), None
            endpoint.observe_head(header.number)
            word = self._words.get(endpoint)
            if header.hash == word or header.number < self._window.floor:
                self._doubts.pop(endpoint, None)
                return
            if header.hash in self._window:
                former = word or (self._head or self._window.tip()).hash
                doubtful = self._window.is_ancestor(header.hash, former)
                if doubtful and not self._is_confirmed(endpoint, header, pushed or not gone):
                    return
                path = [header]
            else:
                path = await walk_back(self._pool, self._window, header, endpoint, self._read)
            await self._tell(endpoint, path)

    def _is_confirmed(self, endpoint: Endpoint, header: HeadHeader, weak: bool) -> bool:
        """Count an endpoint's repeated word for a lower head; whether it is often enough."""
        if weak:
            return False
        doubted, times = self._doubts.get(endpoint, (header.hash, 0))
        times = times + 1 if doubted == header.hash else 1
        self._doubts[endpoint] = (header.hash, times)
        return times >= self._limits.rollback_polls

    async def _tell(self, endpoint: Endpoint, path: list[HeadHeader]) -> None:
        """Put headers into the sink, ancestors first, and want the blocks of those not known."""
        now_ms = self._pool.now_ms()
        head = path[-1]
        self._doubts.pop(endpoint, None)
        self._words[endpoint] = head.hash
        if self._head is None or head.hash != self._head.hash:
            self._head, self._observed_at_ms = head, now_ms
            self._advanced_at = self._pool.clock()
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
        if self._chain.finality != "depth" or self._head is None:
            return
        height = self._head.number - self._chain.finality_depth_blocks
        header = self._window.ancestor(self._head.hash, height)
        if header is not None:
            await self._tell_final("finalized", header)

    async def _tell_final(self, kind: Literal["safe", "finalized"], header: HeadHeader) -> None:
        """Tell of a final block once it is known here; the window then begins at it."""
        if header.hash in self._window and header.number > self._told.get(kind, -1):
            self._told[kind] = header.number
            final = FinalityAdvanced(
                self._chain_id, kind, header.number, header.hash, self._pool.now_ms()
            )
            await self._sink.put(finality_envelope(final))
            if kind == "finalized":
                self._final = header
        lowest = self._bodies.lowest()
        if self._final is not None and (lowest is None or lowest > self._final.number):
            self._window.finalize(self._final)
            self._final = None
