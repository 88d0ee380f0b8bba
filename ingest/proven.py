"""Blocks wanted in, proven segments out: what fails a proof is fetched from another endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeAlias, TypeVar

import structlog

from ingest.endpoint import Endpoint
from ingest.fetch import CALLS_PER_BLOCK, BlockId, BlockPayload, block_text, fetch_blocks
from ingest.limits import IngestLimits
from ingest.providers import ProviderPool, Terms
from ingest.publish import Build, BuildTogether, Built
from schemas.errors import HeadraceError
from schemas.errors_ingest import ProvidersQuarantined
from schemas.segments import Lane

log = structlog.get_logger(__name__)

T = TypeVar("T")

FetchPayloads: TypeAlias = Callable[[Endpoint, Sequence[BlockId]], Awaitable[list[BlockPayload]]]
"""Fetches blocks by height (a contiguous range) or by hash from one endpoint."""

PROOF_CODES = "HR-22"
"""Errors of ingest/verify.py and ingest/build.py begin so."""
OUR_LIMIT_CODES = frozenset({"HR-2202", "HR-2211", "HR-2214", "HR-2225", "HR-2239"})
"""Failures by what this version does not know of a chain: no endpoint is quarantined for them."""
RACE_CODES = frozenset({"HR-2212", "HR-2230", "HR-2235", "HR-2241"})
"""Proofs that fail also without a lie, by a reorg between two calls; it is one when it lasts."""
CUT_CODES = frozenset({"HR-2242"})
"""Proofs that fail when an answer was cut: the endpoint is asked for fewer blocks, not blamed."""
RACES_MAX = 5
"""Such failures in a row, over all that an endpoint served, before it counts as a liar."""
SOLE_STRIKES = 3
"""Failed proofs before the only endpoint left is quarantined, too."""


def is_proof_failure(error: HeadraceError) -> bool:
    """Whether an error says that what was served is not what the header commits to."""
    return error.code.startswith(PROOF_CODES)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A proven segment, who served it, and the weight of its answers."""

    built: Built
    """The segment."""
    endpoint: Endpoint
    """Who served it."""
    size_bytes: int
    """Bytes of JSON it was made of."""


@dataclass(frozen=True, slots=True)
class ProvenFetcher:
    """Fetches blocks until they are proven."""

    pool: ProviderPool
    """Who is asked."""
    build: Build
    """Proves and builds; runs in `executor` where there is one (then it must be picklable)."""
    executor: Executor | None = None
    """Where proofs are computed; None: in place."""
    fetch_payloads: FetchPayloads = fetch_blocks
    """Asks one endpoint: `fetch_blocks`, or a `LogsSource`."""
    together: BuildTogether | None = None
    """Proves and builds adjacent ranges in one pass, as `build` does each; None: it cannot."""
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered around what is computed in place; may wait for other threads that compute."""
    reported: set[str] = field(default_factory=set)
    """What was reported as not provable: each once."""

    async def fetch(
        self,
        wanted: Sequence[BlockId],
        lane: Lane,
        *,
        prefer: Endpoint | None = None,
        avoid: Iterable[Endpoint] = (),
        observed_at_ms: int | None = None,
    ) -> Fetched:
        """Fetch a contiguous range, prove it and build its segments.

        An endpoint whose answer fails a proof is quarantined (at once while there are others)
        and the range is fetched from another; nothing of a failed answer is kept.

        Parameters
        ----------
        wanted : Sequence[int | bytes]
            Heights of a range, ascending; or one hash.
        lane : Lane
            The lane of the segments.
        prefer : Endpoint, optional
            Asked first.
        avoid : Iterable[Endpoint]
            Not asked while there is any other.
        observed_at_ms : int, optional
            When the last block was seen; now, where it is not given.

        Raises
        ------
        HeadraceError
            The last failed proof where no endpoint had a provable answer, or what
            `ProviderPool.run` raises.
        """
        terms = _terms(wanted, lane, self.pool.limits, prefer=prefer)
        avoided = set(avoid)
        strikes: dict[Endpoint, int] = {}
        doubted: dict[Endpoint, HeadraceError] = {}
        failure: HeadraceError | None = None
        attempt = 0
        while attempt < self.pool.limits.retry_attempts_max:
            try:
                served = await self.pool.run(
                    lambda e: self.fetch_payloads(e, wanted), terms, avoided
                )
            except ProvidersQuarantined as error:
                # What failed here says more than that nobody is left.
                raise (failure or error) from None
            try:
                seen_ms = self.pool.now_ms() if observed_at_ms is None else observed_at_ms
                built = await self._computed(self.build, served.value, lane, seen_ms)
                served.endpoint.races = 0
                doubted.pop(served.endpoint, None)
                for endpoint, doubt in doubted.items():
                    # The block can be proven, so what could not be was altered.
                    self.pool.quarantine_endpoint(endpoint, doubt)
                self._report(built)
                return Fetched(built, served.endpoint, _size_bytes(served.value))
            except HeadraceError as error:
                if not is_proof_failure(error):
                    raise
                failure = type(error)(**error.data | {"endpoint": served.endpoint.name})
            if failure.code in CUT_CODES and served.endpoint.narrow_logs(len(wanted)):
                # Each time to half of the blocks, so this ends; only then an attempt counts.
                continue
            attempt += 1
            if failure.code in OUR_LIMIT_CODES:
                doubted[served.endpoint] = failure
            strikes[served.endpoint] = strikes.get(served.endpoint, 0) + 1
            if not self._blame(served.endpoint, failure, strikes[served.endpoint]):
                break
            avoided.add(served.endpoint)
            if avoided.issuperset(self.pool.usable()):
                await asyncio.sleep(self.pool.backoff_seconds(attempt - 1))
        assert failure is not None
        raise failure

    async def fetch_together(self, parts: Sequence[Sequence[BlockId]]) -> list[Fetched]:
        """Fetch adjacent ranges of history from one endpoint, and prove them together.

        One endpoint is asked, once, and nobody is blamed: where this fails, fetch each alone.

        Parameters
        ----------
        parts : Sequence[Sequence[int | bytes]]
            Heights of each range, ascending.

        Returns
        -------
        list[Fetched]
            One a range.

        Raises
        ------
        HeadraceError
            Whatever was the matter with any of them.
        """
        assert self.together is not None
        wanted = list(chain.from_iterable(parts))
        terms = _terms(wanted, "history", self.pool.limits, attempts_max=1)
        served = await self.pool.run(lambda e: self.fetch_payloads(e, wanted), terms)
        came = iter(served.value)
        payloads = [list(islice(came, len(part))) for part in parts]
        built = await self._computed(self.together, payloads, "history", self.pool.now_ms())
        served.endpoint.races = 0
        self._report(*built)
        pairs = zip(built, payloads, strict=True)
        return [Fetched(one, served.endpoint, _size_bytes(own)) for one, own in pairs]

    async def fetch_each(
        self, wanted: Sequence[tuple[bytes, int]], *, prefer: Endpoint | None = None
    ) -> list[Fetched | HeadraceError]:
        """Fetch blocks of the head by hash, each a segment of its own, in one request.

        Parameters
        ----------
        wanted : Sequence[tuple[bytes, int]]
            Hash of each block and when it was seen, unix milliseconds.
        prefer : Endpoint, optional
            Asked first.

        Returns
        -------
        list[Fetched | HeadraceError]
            In order; an error where that block could not be had.
        """
        results: dict[bytes, Fetched] = {}
        if len(wanted) > 1:
            hashes = [block_hash for block_hash, _ in wanted]
            terms = _terms(hashes, "head", self.pool.limits, prefer=prefer)
            try:
                served = await self.pool.run(lambda e: self.fetch_payloads(e, hashes), terms)
                for (block_hash, seen_ms), payload in zip(wanted, served.value, strict=True):
                    built = await self._computed(self.build, [payload], "head", seen_ms)
                    self._report(built)
                    results[block_hash] = Fetched(built, served.endpoint, _size_bytes([payload]))
            except HeadraceError as error:
                # Each of the rest is asked for alone, where its own failure has consequences.
                log.info("head_blocks_asked_singly", code=error.code)
        return [
            results.get(block_hash) or await self._fetch_or_error(block_hash, seen_ms, prefer)
            for block_hash, seen_ms in wanted
        ]

    async def _fetch_or_error(
        self, block_hash: bytes, seen_ms: int, prefer: Endpoint | None
    ) -> Fetched | HeadraceError:
        try:
            return await self.fetch([block_hash], "head", prefer=prefer, observed_at_ms=seen_ms)
        except HeadraceError as error:
            return error

    def _report(self, *segments: Built) -> None:
        """Log once what could not be proven for a reason that lies in the chain."""
        for built in segments:
            for words in built.logs.unproven:
                if ": " in words and words not in self.reported:
                    self.reported.add(words)
                    log.warning("not_provable", what=words, block=built.from_block)

    def _blame(self, endpoint: Endpoint, error: HeadraceError, strikes: int) -> bool:
        """Quarantine where due; whether anyone is left to ask."""
        others = [other for other in self.pool.usable() if other is not endpoint]
        endpoint.last_error = str(error)
        if error.code in OUR_LIMIT_CODES:
            return strikes < SOLE_STRIKES
        if error.code in RACE_CODES:
            endpoint.races += 1
            if not others or endpoint.races < RACES_MAX:
                return strikes < SOLE_STRIKES
        if others or strikes >= SOLE_STRIKES:
            self.pool.quarantine_endpoint(endpoint, error)
        return bool(self.pool.usable())

    async def _computed(self, build: Callable[..., T], *args: object) -> T:
        if self.executor is None:
            with self.turn():
                return build(*args)
        return await asyncio.get_running_loop().run_in_executor(self.executor, build, *args)


def _terms(
    wanted: Sequence[BlockId],
    lane: Lane,
    limits: IngestLimits,
    *,
    prefer: Endpoint | None = None,
    attempts_max: int | None = None,
) -> Terms:
    oldest = wanted[0] if lane == "history" and isinstance(wanted[0], int) else None
    return Terms(
        wanted=_range_text(wanted),
        calls=CALLS_PER_BLOCK * len(wanted),
        reserve=1 if lane == "history" else 0,
        prefer=prefer,
        oldest_block=oldest,
        attempts_max=attempts_max,
        repeat_seconds=limits.head_repeat_seconds if lane == "head" else None,
    )


def _size_bytes(payloads: Sequence[BlockPayload]) -> int:
    return sum(len(payload.block) + len(payload.receipts) for payload in payloads)


def _range_text(wanted: Sequence[BlockId]) -> str:
    if len(wanted) == 1:
        return f"block {block_text(wanted[0])}"
    return f"blocks {block_text(wanted[0])} to {block_text(wanted[-1])}"
