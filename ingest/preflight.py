"""A pool and what a run asks for in, the facts to begin with out, or the coded reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ingest.chain_id import agreed_chain_id, read_chain_id
from ingest.endpoint import Endpoint, ReceiptsBy
from ingest.fetch import NULL, fetch_blocks
from ingest.headwindow import HeadHeader, read_header
from ingest.providers import ProviderPool, Terms
from ingest.rpc import RpcCall
from schemas.chains import ChainFacts
from schemas.errors import HeadraceError, Permanent
from schemas.errors_ingest import (
    AccessRefused,
    AnswerIsHtml,
    AnswerNotJsonRpc,
    BlockNotServed,
    ChainIdMalformed,
    ChainIdWrong,
    ClockSkewed,
    EndpointsUnusable,
    HeadOld,
    HistoryPruned,
    MethodMissing,
    ProvidersExhausted,
    RequestRefused,
    StartBeyondHead,
)

_LASTING = (
    AccessRefused,
    AnswerIsHtml,
    AnswerNotJsonRpc,
    ChainIdMalformed,
    ChainIdWrong,
    RequestRefused,
)
"""Why an endpoint is left out for the rest of a run; what else fails may mend."""
HEAD_OLD_SECONDS = 86_400.0
"""Clocks are off by minutes or hours; a head this old is old."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the endpoints say before a run begins."""

    chain_id: int
    """The chain's id."""
    head: HeadHeader
    """The newest block that any endpoint has."""
    finalized: HeadHeader | None
    """The newest final block, by tag or by depth; None where nothing is final yet."""
    receipts_by: ReceiptsBy
    """The best way to receipts that an endpoint offers."""
    excluded: tuple[tuple[str, HeadraceError], ...]
    """Endpoints that are left out of this run, by display name, each with the reason."""
    warnings: tuple[HeadraceError, ...]
    """What does not stop a run but should be seen: a clock that is off, endpoints that are down."""


@dataclass(frozen=True, slots=True)
class _Greeting:
    chain_id: int
    head: HeadHeader
    finalized: HeadHeader | None


async def preflight(
    pool: ProviderPool,
    chain: ChainFacts,
    *,
    from_block: int | None = None,
    receipts: bool = True,
) -> Preflight:
    """Ask every endpoint who it is, and whether the run can begin, or go on.

    Endpoints of another chain, or that are none, are left out of the pool, loudly, as long as one
    remains; those that are down stay in it. Where endpoints have answered before, and none does
    now, they are given the time that other work gives them.

    Parameters
    ----------
    pool : ProviderPool
        The endpoints.
    chain : ChainFacts
        The chain that is meant; where it has no chain id, the one that most endpoints serve.
    from_block : int, optional
        Where the backfill begins.
    receipts : bool
        Whether receipts are needed.

    Raises
    ------
    ChainIdWrong
        Every endpoint that answers serves another chain.
    ChainsDiffer
        No chain id is given, and endpoints disagree without a majority.
    EndpointsUnusable
        No endpoint answers; where there is only one, its own error instead.
    StartBeyondHead
        `from_block` does not exist yet.
    HistoryPruned
        No endpoint serves `from_block`, or not with its receipts.
    """
    greetings, refused = await _greet_all(pool, chain)
    for attempt in range(pool.limits.retry_attempts_max):
        known = any(endpoint.answers for endpoint in pool.usable())
        if greetings or not known or any(isinstance(e, Permanent) for e in refused.values()):
            break
        await asyncio.sleep(pool.backoff_seconds(attempt))
        greetings, refused = await _greet_all(pool, chain)
    if not greetings:
        raise _none_usable(refused)
    excluded = {one: error for one, error in refused.items() if isinstance(error, _LASTING)}
    for endpoint, reason in excluded.items():
        pool.exclude(endpoint, reason)
    down = tuple(error for one, error in refused.items() if one not in excluded)
    head = max((greeting.head for greeting in greetings.values()), key=lambda h: h.number)
    for endpoint, greeting in greetings.items():
        endpoint.observe_head(greeting.head.number, pool.clock())
    if from_block is not None and from_block > head.number:
        raise StartBeyondHead(from_block=from_block, head=head.number)
    finals = [greeting.finalized for greeting in greetings.values() if greeting.finalized]
    if from_block is not None and receipts:
        await _check_history(pool, from_block)
    return Preflight(
        chain_id=next(iter(greetings.values())).chain_id,
        head=head,
        finalized=max(finals, key=lambda h: h.number, default=None),
        receipts_by=min(endpoint.can.receipts_by for endpoint in greetings),
        excluded=tuple((endpoint.name, error) for endpoint, error in excluded.items()),
        warnings=(*_skew(pool, chain, head), *_no_receipts(greetings), *down),
    )


async def _greet_all(
    pool: ProviderPool, chain: ChainFacts
) -> tuple[dict[Endpoint, _Greeting], dict[Endpoint, HeadraceError]]:
    """What each endpoint says of itself, and why some do not count."""
    asked = pool.usable() or pool.endpoints
    answers = await asyncio.gather(*(_greet_twice(one, chain) for one in asked))
    greetings, refused = {}, {}
    for endpoint, answer in zip(asked, answers, strict=True):
        if isinstance(answer, HeadraceError):
            refused[endpoint] = answer
        else:
            greetings[endpoint] = answer
    expected = chain.chain_id
    if expected is None and greetings:
        expected = agreed_chain_id({one: said.chain_id for one, said in greetings.items()})
    for endpoint, greeting in list(greetings.items()):
        if greeting.chain_id != expected:
            del greetings[endpoint]
            refused[endpoint] = ChainIdWrong(
                endpoint=endpoint.name,
                actual=greeting.chain_id,
                expected=expected,
                chain=chain.name,
            )
    return greetings, refused


async def _greet_twice(endpoint: Endpoint, chain: ChainFacts) -> _Greeting | HeadraceError:
    """Greet an endpoint, once more where the failure may have been a passing one."""
    try:
        return await _greet(endpoint, chain)
    except HeadraceError as error:
        endpoint.last_error = str(error)
    try:
        return await _greet(endpoint, chain)
    except HeadraceError as error:
        return error


async def _greet(endpoint: Endpoint, chain: ChainFacts) -> _Greeting:
    calls = [RpcCall("eth_chainId", ()), RpcCall("eth_getBlockByNumber", ("latest", False))]
    if chain.finality == "tags":
        calls.append(RpcCall("eth_getBlockByNumber", ("finalized", False)))
    outcomes = await endpoint.ask(calls)
    for outcome in outcomes[:2]:
        if isinstance(outcome, HeadraceError):
            raise outcome
    chain_id, latest = outcomes[0], outcomes[1]
    assert isinstance(chain_id, msgspec.Raw)
    assert isinstance(latest, msgspec.Raw)
    if latest == NULL:
        raise BlockNotServed(endpoint=endpoint.name, block="latest")
    final: HeadHeader | None = None
    if chain.finality == "tags":
        if isinstance(outcomes[2], msgspec.Raw) and outcomes[2] != NULL:
            final = read_header(outcomes[2])
    else:
        final = await _final_by_depth(endpoint, read_header(latest), chain)
    return _Greeting(read_chain_id(endpoint.url, chain_id), read_header(latest), final)


async def _final_by_depth(
    endpoint: Endpoint, head: HeadHeader, chain: ChainFacts
) -> HeadHeader | None:
    height = head.number - chain.finality_depth_blocks
    if height < 0:
        return None
    call = RpcCall("eth_getBlockByNumber", (hex(height), False))
    outcome = (await endpoint.ask([call]))[0]
    if isinstance(outcome, HeadraceError):
        raise outcome
    return None if outcome == NULL else read_header(outcome)


async def _check_history(pool: ProviderPool, from_block: int) -> None:
    """Fetch the first block with its receipts: pruned history shows now and not in an hour."""
    terms = Terms(f"block {from_block} with its receipts", calls=2, oldest_block=from_block)
    try:
        await pool.run(lambda endpoint: fetch_blocks(endpoint, [from_block]), terms)
    except ProvidersExhausted as error:
        last = error.data.get("last")
        if not isinstance(last, HeadraceError) or last.code not in ("HR-2020", "HR-2021"):
            raise
    else:
        return
    names = ", ".join(endpoint.name for endpoint in pool.usable())
    raise HistoryPruned(endpoint=names, block=from_block)


def _none_usable(refused: dict[Endpoint, HeadraceError]) -> HeadraceError:
    errors = list(refused.values())
    wrong = [error for error in errors if isinstance(error, ChainIdWrong)]
    if wrong or len(errors) == 1:
        return (wrong or errors)[0]
    return EndpointsUnusable(reasons="; ".join(map(str, errors)) or "none was given")


def _no_receipts(endpoints: Iterable[Endpoint]) -> tuple[HeadraceError, ...]:
    """A warning where no endpoint gives receipts: logs alone reach a lower level."""
    ways = {endpoint.name: endpoint.can.receipts_by for endpoint in endpoints}
    if min(ways.values()) is not ReceiptsBy.logs:
        return ()
    return (MethodMissing(endpoint=", ".join(ways), method="eth_getBlockReceipts"),)


def _skew(pool: ProviderPool, chain: ChainFacts, head: HeadHeader) -> tuple[HeadraceError, ...]:
    """A warning where the newest block is old, or the clock is off; not for a resting devchain."""
    seconds = pool.now_ms() / 1000 - head.time
    allowed = max(pool.limits.clock_skew_seconds_max, 20 * chain.block_time_seconds)
    if abs(seconds) <= allowed or (chain.chain_id is None and seconds > 0):
        return ()
    if seconds > HEAD_OLD_SECONDS:
        at = datetime.fromtimestamp(head.time, UTC)
        days = round(seconds / 86_400)
        return (HeadOld(number=head.number, time=f"{at:%Y-%m-%d %H:%M} UTC", days=days),)
    direction = "ahead of" if seconds > 0 else "behind"
    return (ClockSkewed(skew_seconds=round(abs(seconds)), direction=direction),)
