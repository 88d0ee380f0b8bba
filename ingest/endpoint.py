"""One endpoint: what it can do, how it fares, and many calls as few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ingest.limits import IngestLimits
from ingest.pace import Pace
from ingest.redact import EndpointUrl
from ingest.rpc import Outcome, RpcCall, RpcClient
from schemas.errors import HeadraceError
from schemas.errors_ingest import AnswerTooLarge, BatchRefused, EndpointTimeout

REQUESTS_AT_ONCE_MAX = 4
"""Parts of one split batch that are in flight together."""


class ReceiptsBy(IntEnum):
    """How an endpoint gives the receipts of a block, best first."""

    block = 0
    """eth_getBlockReceipts."""
    transaction = 1
    """eth_getTransactionReceipt for each transaction."""
    logs = 2
    """eth_getLogs by block hash: logs only, so that no receiptsRoot can be rebuilt."""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """An endpoint as a user gives it."""

    url: str = field(repr=False)
    """Its address. Secret."""
    weight: float = 1.0
    """Share of the work it gets among equals."""
    websocket_url: str | None = field(default=None, repr=False)
    """Where heads are subscribed, where that differs from `url`. Secret."""


@dataclass(slots=True)
class Capabilities:
    """What was learnt of an endpoint from its refusals."""

    batch_calls_max: int
    """Calls in one request; 1 where it takes no batches."""
    batch_calls_timely: int
    """Calls whose answers come in time; halved by a timeout, grows again with each success."""
    receipts_by: ReceiptsBy = ReceiptsBy.block
    """The best way to receipts that it has not refused."""
    receipts_by_hash: bool = True
    """Whether eth_getBlockReceipts takes a block hash."""
    logs_range_blocks_max: int = 1
    """Blocks of one eth_getLogs request."""
    logs_range_streak: int = 0
    """Answers in a row at that width."""
    logs_range_ceiling: int | None = None
    """The width is not tried wider: such an answer was cut without saying so."""
    history_floor: int = 0
    """It does not keep blocks below this one."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why an endpoint is not asked, and for how long."""

    code: str
    """Code of the error that showed the lie."""
    reason: str
    """What was wrong, in words."""
    since_ms: int
    """Unix milliseconds at which it began."""
    until: float
    """End, on the pool's clock."""


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """An endpoint as the display shows it."""

    name: str
    """Display name, without secrets."""
    in_flight: int
    """Requests in flight."""
    limit: int
    """Requests that may be in flight."""
    calls_per_second: float | None
    """Learnt bound on the rate, if any."""
    latency_seconds: float | None
    """Smoothed time of a request; None before the first."""
    answers: int
    """Requests answered."""
    errors: int
    """Requests that failed."""
    bytes_received: int
    """Bytes of answers."""
    head: int | None
    """The head that it named last."""
    head_age_seconds: float | None
    """Time since it named it."""
    last_error: str
    """Code and sentence of the last failure; empty if none."""
    quarantined: Quarantine | None
    """Set while it is quarantined."""
    paused_seconds: float
    """Time until it may be asked again; 0 where it may be now."""


class Endpoint:
    """One endpoint of a pool, with everything learnt of it."""

    def __init__(
        self, url: EndpointUrl, client: RpcClient, limits: IngestLimits, weight: float = 1.0
    ) -> None:
        self.url = url
        self.client = client
        self.weight = weight
        self.limits = limits
        self.pace = Pace(limits.concurrency_max, float(limits.concurrency_start))
        self.can = Capabilities(
            batch_calls_max=limits.batch_calls_max,
            batch_calls_timely=limits.batch_calls_max,
            logs_range_blocks_max=limits.logs_range_blocks_max,
        )
        self.quarantine: Quarantine | None = None
        self.lies = 0
        self.races = 0
        self.head: int | None = None
        self.head_at = 0.0
        self.latency_seconds: float | None = None
        self.answers = 0
        self.errors = 0
        self.last_error = ""
        self.excluded = ""

    @property
    def name(self) -> str:
        """Display name, without secrets."""
        return self.url.name

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    def observe_head(self, number: int, now: float) -> None:
        """Remember the head that it named, and when."""
        self.head, self.head_at = number, now

    def begin_quarantine(self, error: HeadraceError, now: float, now_ms: int) -> float:
        """Quarantine it for what it served; how long, in seconds, doubled at each further lie."""
        longest = self.limits.quarantine_seconds_max
        seconds = min(longest, self.limits.quarantine_seconds * float(2**self.lies))
        self.lies += 1
        self.errors += 1
        self.last_error = str(error)
        self.quarantine = Quarantine(error.code, error.what_text, now_ms, now + seconds)
        return seconds

    def observe_latency(self, seconds: float) -> None:
        """Smooth the time of an answered request into `latency_seconds`."""
        old = self.latency_seconds
        self.latency_seconds = seconds if old is None else 0.8 * old + 0.2 * seconds

    async def ask(self, calls: Sequence[RpcCall]) -> list[Outcome]:
        """Send calls in as few requests as the endpoint takes.

        A batch that is refused or whose answer is too large is split, down to single calls, and
        the endpoint's bound is remembered. After a timeout the next batches are smaller.

        Parameters
        ----------
        calls : Sequence[RpcCall]
            Any number of calls.

        Returns
        -------
        list[Outcome]
            One outcome a call, in order.

        Raises
        ------
        HeadraceError
            A request as a whole failed.
        """
        size = min(self.can.batch_calls_max, self.can.batch_calls_timely)
        if len(calls) <= size:
            return await self._ask_once(calls)
        parts = [calls[at : at + size] for at in range(0, len(calls), size)]
        outcomes: list[Outcome] = []
        for at in range(0, len(parts), REQUESTS_AT_ONCE_MAX):
            together = parts[at : at + REQUESTS_AT_ONCE_MAX]
            if len(together) == 1:
                outcomes.extend(await self._ask_once(together[0]))
                continue
            for answered in await _together([self._ask_once(part) for part in together]):
                outcomes.extend(answered)
        return outcomes

    async def _ask_once(self, calls: Sequence[RpcCall]) -> list[Outcome]:
        if not calls:
            return []
        if len(calls) == 1 and self.can.batch_calls_max == 1:
            try:
                return [await self.client.call(calls[0].method, *calls[0].params)]
            except HeadraceError as error:
                return [error]
        try:
            outcomes = await self.client.batch(calls)
            refused = any(isinstance(outcome, BatchRefused) for outcome in outcomes)
        except BatchRefused:
            refused = True
        except AnswerTooLarge:
            if len(calls) == 1:
                raise
            half = len(calls) // 2
            return await self._ask_once(calls[:half]) + await self._ask_once(calls[half:])
        except EndpointTimeout:
            self.can.batch_calls_timely = max(1, len(calls) // 2)
            raise
        self._grow_batches(len(calls))
        if refused:
            self.can.batch_calls_max = max(1, min(self.can.batch_calls_max, len(calls) // 2))
            return await self.ask(calls)
        return outcomes

    def _grow_batches(self, calls: int) -> None:
        """After a batch at the bound came in time, let the next ones be a little larger."""
        can = self.can
        if calls >= can.batch_calls_timely:
            can.batch_calls_timely = min(can.batch_calls_timely + 1, self.limits.batch_calls_max)

    def narrow_logs(self, blocks: int) -> bool:
        """After an answer for `blocks` that was cut in silence, ask for half; whether it can."""
        size = min(blocks, self.can.logs_range_blocks_max) // 2
        if size < 1:
            return False
        self.can.logs_range_blocks_max = self.can.logs_range_ceiling = size
        self.can.logs_range_streak = 0
        return True

    def health(self, now: float) -> EndpointHealth:
        """A snapshot for the display."""
        return EndpointHealth(
            name=self.name,
            in_flight=self.pace.in_flight,
            limit=int(self.pace.limit),
            calls_per_second=self.pace.calls_per_second,
            latency_seconds=self.latency_seconds,
            answers=self.answers,
            errors=self.errors,
            bytes_received=self.client.bytes_received,
            head=self.head,
            head_age_seconds=None if self.head is None else now - self.head_at,
            last_error=self.last_error,
            quarantined=self.quarantine,
            paused_seconds=max(0.0, self.pace.paused_until - now),
        )


async def _together(
    requests: Sequence[Coroutine[Any, Any, list[Outcome]]],
) -> list[list[Outcome]]:
    """All answers, or the first failure with the other requests cancelled."""
    tasks = [asyncio.ensure_future(request) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
