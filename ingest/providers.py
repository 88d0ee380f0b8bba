"""Work in, answers out: several endpoints of one chain behind one pool.

The pool chooses an endpoint for each piece of work, keeps to the pace it has learnt, asks
another when one fails or is slow, and does not ask those that have lied. A piece of work runs on
one endpoint as a whole, so that a block and its receipts are of one source.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import aiohttp
import structlog

from ingest.endpoint import Endpoint, EndpointHealth, EndpointSpec
from ingest.limits import IngestLimits
from ingest.redact import parse_endpoint
from ingest.rpc import RpcClient, open_session
from schemas.errors import HeadraceError
from schemas.errors_ingest import (
    AccessRefused,
    AnswerIsHtml,
    AnswerNotJsonRpc,
    EndpointUrlInvalid,
    HistoryPruned,
    ProvidersExhausted,
    ProvidersQuarantined,
    RateLimited,
    RequestRefused,
)

T = TypeVar("T")
Work = Callable[[Endpoint], Awaitable[T]]
log = structlog.get_logger(__name__)

REFUSED_REST_STEPS = 3
"""Longest backoffs for which an endpoint rests that refuses the key or is no JSON-RPC server."""
RATE_REST_SECONDS = 1.0
"""Rest after a refusal for the rate that names no wait."""
HEDGE_LATENCIES = 4.0
"""A request that takes so many times as long as usual is slow."""
_HOPELESS = (AccessRefused, RequestRefused, EndpointUrlInvalid, AnswerIsHtml, AnswerNotJsonRpc)
_ABSENT_CODES = frozenset(
    f"HR-{number}" for number in (2009, 2012, 2015, 2016, 2020, 2021, 2022, 2023, 2030)
)
"""The endpoint is well and answers, but not this: its pace is left alone."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a piece of work is to be placed."""

    wanted: str
    """What it fetches, in words, for the error."""
    calls: int = 1
    """JSON-RPC calls it makes, for the learnt rate."""
    reserve: int = 0
    """Places kept free on each endpoint for more urgent work."""
    prefer: Endpoint | None = None
    """Asked first, if it may be asked at once."""
    oldest_block: int | None = None
    """Oldest block it needs: endpoints that have pruned it are not asked."""
    attempts_max: int | None = None
    """Attempts over all endpoints; as many as the limits say, if not given."""
    urgent: bool = False
    """Asked also while the endpoint rests after a failure or has many requests in flight."""
    repeat_seconds: float | None = None
    """Asked again whenever no answer has come for so long, of the same endpoint where there is no
    other: a request to a node that hung is often never answered, even when the node is back."""


@dataclass(frozen=True, slots=True)
class Served(Generic[T]):
    """An answer and who gave it."""

    endpoint: Endpoint
    """Who answered."""
    value: T
    """The answer."""


class ProviderPool:
    """The endpoints of one chain.

    Use it as an asynchronous context manager; it owns the HTTP session.

    Parameters
    ----------
    specs : Sequence[EndpointSpec | str]
        Endpoints; a plain string is a URL of weight 1.
    limits : IngestLimits
        Bounds.
    clock : Callable[[], float]
        Seconds, monotonic.
    now_ms : Callable[[], int]
        Unix milliseconds, for what is shown.
    rng : random.Random
        Source of jitter.
    env_proxies : bool
        Whether proxies named in the environment are used.

    Raises
    ------
    EndpointUrlInvalid
        An address that is none.
    """

    def __init__(
        self,
        specs: Sequence[EndpointSpec | str],
        limits: IngestLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        env_proxies: bool = False,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.now_ms = now_ms
        self.rng = rng or random.Random()
        self._env_proxies = env_proxies
        given = [spec if isinstance(spec, EndpointSpec) else EndpointSpec(spec) for spec in specs]
        self._parsed = [(parse_endpoint(spec.url, spec.websocket_url), spec) for spec in given]
        self.endpoints: list[Endpoint] = []
        self._session: aiohttp.ClientSession | None = None
        self._freed = asyncio.Event()

    async def __aenter__(self) -> ProviderPool:
        self._session = open_session(self.limits, env_proxies=self._env_proxies)
        self.endpoints = [
            Endpoint(url, RpcClient(url, self._session, self.limits), self.limits, spec.weight)
            for url, spec in self._parsed
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, for WebSockets."""
        if self._session is None:
            raise RuntimeError("the pool is used outside its `async with`")
        return self._session

    def snapshot(self) -> list[EndpointHealth]:
        """Health of every endpoint, in the order given."""
        now = self.clock()
        for endpoint in self.endpoints:
            self._end_quarantine(endpoint, now)
        return [endpoint.health(now) for endpoint in self.endpoints]

    def capacity(self) -> int:
        """Requests that may be in flight over all endpoints that are asked at present."""
        usable = self.usable()
        return max(1, sum(int(endpoint.pace.limit) for endpoint in usable))

    def usable(self) -> list[Endpoint]:
        """Endpoints that are neither excluded nor quarantined."""
        now = self.clock()
        for endpoint in self.endpoints:
            self._end_quarantine(endpoint, now)
        return [e for e in self.endpoints if not e.excluded and e.quarantine is None]

    def exclude(self, endpoint: Endpoint, error: HeadraceError) -> None:
        """Ask an endpoint no more in this run (wrong chain, no JSON-RPC)."""
        endpoint.excluded = error.what_text
        endpoint.last_error = str(error)
        log.warning("endpoint_excluded", endpoint=endpoint.name, code=error.code)

    def quarantine_endpoint(self, endpoint: Endpoint, error: HeadraceError) -> None:
        """Ask an endpoint no more for a while, because what it served is false.

        Parameters
        ----------
        endpoint : Endpoint
            Who served it.
        error : HeadraceError
            The proof that failed.
        """
        seconds = endpoint.begin_quarantine(error, self.clock(), self.now_ms())
        log.warning(
            "endpoint_quarantined",
            endpoint=endpoint.name,
            code=error.code,
            reason=error.what_text,
            seconds=seconds,
        )
        self._freed.set()

    async def run(self, work: Work[T], terms: Terms, avoid: Iterable[Endpoint] = ()) -> Served[T]:
        """Run one piece of work on one endpoint, and on others where that fails.

        Parameters
        ----------
        work : Callable[[Endpoint], Awaitable[T]]
            What to do; may be run several times, on different endpoints.
        terms : Terms
            How to place it.
        avoid : Iterable[Endpoint]
            Not asked while there is any other.

        Raises
        ------
        ProvidersExhausted
            All attempts failed.
        ProvidersQuarantined
            Every endpoint has lied.
        HistoryPruned
            Every endpoint has pruned `terms.oldest_block`.
        """
        tried = set(avoid)
        last: HeadraceError | None = None
        for attempt in range(terms.attempts_max or self.limits.retry_attempts_max):
            if tried.issuperset(self._serving(terms)):
                tried = set()
                if last is not None and last.code in _ABSENT_CODES:
                    await asyncio.sleep(self.backoff_seconds(attempt))
            endpoint = await self._acquire(terms, tried)
            tried.add(endpoint)
            try:
                return await self._run_hedged(endpoint, work, terms, tried)
            except HeadraceError as error:
                last = error
            if self._is_down(terms):
                break
        raise ProvidersExhausted(
            wanted=terms.wanted,
            attempts=attempt + 1,
            last_error=str(last),
            endpoints=", ".join(endpoint.name for endpoint in self.endpoints),
            last=last,
        )

    def _serving(self, terms: Terms) -> list[Endpoint]:
        """Endpoints that may be asked for such work; raises where there is none."""
        usable = self.usable()
        if not usable:
            reasons = [
                f"{e.name}: {e.quarantine.reason if e.quarantine else e.excluded}"
                for e in self.endpoints
            ]
            raise ProvidersQuarantined(reasons="; ".join(reasons))
        oldest = terms.oldest_block
        serving = [e for e in usable if oldest is None or e.can.history_floor <= oldest]
        if not serving:
            raise HistoryPruned(endpoint=", ".join(e.name for e in usable), block=oldest)
        return serving

    def _is_down(self, terms: Terms) -> bool:
        """Whether every endpoint has failed so often in a row that more attempts are of no use.

        Without this, many pieces of work would each spend all their attempts on a dead node.
        """
        enough = self.limits.retry_attempts_max
        return all(e.pace.failures_in_row >= enough for e in self._serving(terms))

    async def _acquire(self, terms: Terms, tried: set[Endpoint]) -> Endpoint:
        while True:
            now = self.clock()
            serving = self._serving(terms)
            fresh = [e for e in serving if e not in tried] or serving
            endpoint = self._choose(fresh, now, terms)
            if endpoint is not None:
                endpoint.pace.begin(now, terms.calls)
                return endpoint
            ready = [e.pace.ready_at(now, terms.reserve, urgent=terms.urgent) for e in fresh]
            soonest = min((at for at in ready if at is not None), default=None)
            self._freed.clear()
            try:
                async with asyncio.timeout(None if soonest is None else soonest - now):
                    await self._freed.wait()
            except TimeoutError:
                continue

    def _choose(self, endpoints: Sequence[Endpoint], now: float, terms: Terms) -> Endpoint | None:
        """The endpoint with the least load for its weight that may be asked now."""
        best, best_load = None, 0.0
        for endpoint in endpoints:
            at = endpoint.pace.ready_at(now, terms.reserve, urgent=terms.urgent)
            if at is None or at > now:
                continue
            if endpoint is terms.prefer:
                return endpoint
            latency = endpoint.latency_seconds or 0.0
            load = (endpoint.pace.in_flight + 1) * (0.01 + latency) / endpoint.weight
            if best is None or load < best_load:
                best, best_load = endpoint, load
        return best

    async def _run_hedged(
        self, endpoint: Endpoint, work: Work[T], terms: Terms, tried: set[Endpoint]
    ) -> Served[T]:
        """Run work; while it is slow, on another idle endpoint too: the first answer wins."""
        repeat = terms.repeat_seconds
        if len(self.endpoints) < 2 and repeat is None:
            return await self._run_on(endpoint, work)
        # Where every answer is slow, asking twice would only make them slower.
        usual = HEDGE_LATENCIES * (endpoint.latency_seconds or 0.0)
        wait: float | None = max(repeat or self.limits.hedge_after_seconds, usual)
        running = {first := asyncio.ensure_future(self._run_on(endpoint, work))}
        try:
            while True:
                done, running = await asyncio.wait(
                    running, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                answered = [task for task in done if task.exception() is None]
                if answered or (done and not running) or (first in done and repeat is not None):
                    return (answered or list(done))[0].result()
                if done:
                    continue
                wait = wait if repeat is not None else None
                second = self._second(terms, tried)
                if second is not None:
                    tried.add(second)
                    running.add(asyncio.ensure_future(self.run_on(second, work, terms.calls)))
                    log.info("request_hedged", slow=endpoint.name, second=second.name)
        finally:
            for task in running:
                task.cancel()

    def _second(self, terms: Terms, tried: set[Endpoint]) -> Endpoint | None:
        """Who is asked while an answer is slow: an endpoint not tried yet, or any to repeat."""
        now, serving = self.clock(), self._serving(terms)
        fresh = self._choose([e for e in serving if e not in tried], now, terms)
        if fresh is not None or terms.repeat_seconds is None:
            return fresh
        allowed = [e for e in serving if e.pace.refused_until <= now]
        return min(allowed, key=lambda e: e.pace.in_flight, default=None)

    async def run_on(self, endpoint: Endpoint, work: Work[T], calls: int = 1) -> Served[T]:
        """Run one piece of work on one endpoint, once and at once.

        Raises
        ------
        HeadraceError
            It failed.
        """
        endpoint.pace.begin(self.clock(), calls)
        return await self._run_on(endpoint, work)

    async def _run_on(self, endpoint: Endpoint, work: Work[T]) -> Served[T]:
        began = self.clock()
        try:
            value = await work(endpoint)
        except HeadraceError as error:
            self._note_failure(endpoint, error)
            raise
        except BaseException:
            endpoint.pace.abandon()
            raise
        finally:
            self._freed.set()
        endpoint.answers += 1
        endpoint.observe_latency(self.clock() - began)
        endpoint.pace.succeed()
        return Served(endpoint, value)

    def _note_failure(self, endpoint: Endpoint, error: HeadraceError) -> None:
        now = self.clock()
        endpoint.errors += 1
        endpoint.last_error = str(error)
        log.debug("request_failed", endpoint=endpoint.name, code=error.code)
        if isinstance(error, RateLimited):
            wait = error.data.get("retry_after_seconds")
            seconds = float(wait) if isinstance(wait, int | float) else RATE_REST_SECONDS
            endpoint.pace.refuse(now, min(seconds, self.limits.retry_after_seconds_max))
        elif error.code in _ABSENT_CODES:
            endpoint.pace.abandon()
        elif isinstance(error, _HOPELESS):
            others = len(self.usable()) > 1
            rest = self.backoff_seconds(endpoint.pace.failures_in_row)
            longest = self.limits.backoff_seconds_max * REFUSED_REST_STEPS
            endpoint.pace.fail(now, longest if others else rest)
        else:
            endpoint.pace.fail(now, self.backoff_seconds(endpoint.pace.failures_in_row))

    def _end_quarantine(self, endpoint: Endpoint, now: float) -> None:
        if endpoint.quarantine is not None and endpoint.quarantine.until <= now:
            endpoint.quarantine = None
            log.info("endpoint_released", endpoint=endpoint.name)

    def backoff_seconds(self, step: int) -> float:
        """A wait of full jitter after `step` failures."""
        limits = self.limits
        ceiling = min(limits.backoff_seconds_max, limits.backoff_seconds_min * 2 ** min(step, 30))
        return self.rng.uniform(0.0, ceiling)
