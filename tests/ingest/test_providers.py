"""Work in, answers out: choice, pace, failover, hedging, quarantine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from aiohttp import web

from ingest.endpoint import Endpoint, EndpointSpec
from ingest.limits import IngestLimits
from ingest.pace import Pace
from ingest.providers import ProviderPool, Terms
from ingest.rpc import RpcCall
from schemas.errors_ingest import (
    AccessRefused,
    BlockNotServed,
    EndpointTimeout,
    HistoryPruned,
    ProvidersExhausted,
    ProvidersQuarantined,
    RateLimited,
    ServerFailed,
)
from schemas.errors_verify import ReceiptsRootMismatch
from tests.ingest.fake_node import FakeNode, fake_chain
from tests.ingest.leap import Gate, leap
from tests.ingest.patient import PATIENT
from tests.patience import PATIENCE_SECONDS

FAST = replace(PATIENT, backoff_seconds_min=0.001, backoff_seconds_max=0.002, retry_attempts_max=4)
ANY = Terms("something")
LIE = ReceiptsRootMismatch(number="1", hash="0x", computed="0x", expected="0x", note="")


@dataclass
class Clock:
    """Time that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def pool_of(
    count: int, limits: IngestLimits = FAST, clock: Clock | None = None
) -> AsyncIterator[ProviderPool]:
    urls = [f"http://host{number}.invalid/secret" for number in range(count)]
    extra = {"clock": clock} if clock else {}
    async with ProviderPool(urls, limits, rng=random.Random(5), **extra) as pool:
        yield pool


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def name_of(endpoint: Endpoint) -> str:
    return endpoint.name.partition(".")[0]


async def test_a_failure_is_asked_elsewhere() -> None:
    async with pool_of(3) as pool:
        asked: list[str] = []

        async def work(endpoint: Endpoint) -> str:
            asked.append(await name_of(endpoint))
            if len(asked) < 3:
                raise ServerFailed(endpoint=endpoint.name, method="x", status=500)
            return "done"

        assert (await pool.run(work, ANY)).value == "done"
        assert len(set(asked)) == 3


async def test_attempts_are_bounded_and_the_last_error_is_named() -> None:
    async with pool_of(2) as pool:
        attempts = 0

        async def work(endpoint: Endpoint) -> None:
            nonlocal attempts
            attempts += 1
            raise ServerFailed(endpoint=endpoint.name, method="x", status=503)

        with pytest.raises(ProvidersExhausted, match="HR-2004") as caught:
            await pool.run(work, ANY)
        assert attempts == FAST.retry_attempts_max
        assert isinstance(caught.value.data["last"], ServerFailed)


async def test_an_unknown_exception_is_not_swallowed() -> None:
    async with pool_of(1) as pool:

        async def work(endpoint: Endpoint) -> None:
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            await pool.run(work, ANY)
        assert pool.endpoints[0].pace.in_flight == 0


async def test_work_goes_by_weight() -> None:
    specs = [
        EndpointSpec("http://host0.invalid", weight=3.0),
        EndpointSpec("http://host1.invalid", weight=1.0),
    ]
    limits = replace(FAST, concurrency_start=16)
    async with ProviderPool(specs, limits) as pool:
        done = asyncio.Event()

        async def work(endpoint: Endpoint) -> str:
            await done.wait()
            return await name_of(endpoint)

        tasks = [asyncio.ensure_future(pool.run(work, ANY)) for _ in range(12)]
        await settle()
        assert [endpoint.pace.in_flight for endpoint in pool.endpoints] == [9, 3]
        done.set()
        await asyncio.gather(*tasks)


async def test_no_more_than_the_limit_is_in_flight_and_urgent_work_finds_a_place() -> None:
    limits = replace(FAST, concurrency_start=3, concurrency_max=3)
    async with pool_of(1, limits) as pool:
        done = asyncio.Event()

        async def wait(endpoint: Endpoint) -> None:
            await done.wait()

        backfill = [
            asyncio.ensure_future(pool.run(wait, Terms("history", reserve=1))) for _ in range(6)
        ]
        await settle()
        assert pool.endpoints[0].pace.in_flight == 2
        assert (await pool.run(name_of, Terms("head"))).value == "host0"
        done.set()
        await asyncio.gather(*backfill)
        assert pool.endpoints[0].pace.in_flight == 0


async def test_the_slow_one_is_hedged_and_the_first_answer_wins() -> None:
    limits = replace(FAST, hedge_after_seconds=0.01)
    async with pool_of(2, limits) as pool:
        stuck = asyncio.Event()
        cancelled = asyncio.Event()
        asked: list[Endpoint] = []

        async def work(endpoint: Endpoint) -> Endpoint:
            asked.append(endpoint)
            if len(asked) == 1:
                try:
                    await stuck.wait()
                finally:
                    cancelled.set()
            return endpoint

        served = await pool.run(work, ANY)
        assert served.endpoint is asked[1]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await cancelled.wait()
        await asyncio.sleep(0)
        assert [endpoint.pace.in_flight for endpoint in pool.endpoints] == [0, 0]


@pytest.mark.parametrize("endpoints", [1, 2])
async def test_what_is_to_be_repeated_is_asked_again_until_one_request_is_answered(
    endpoints: int,
) -> None:
    async with pool_of(endpoints, FAST) as pool:
        never, asked = asyncio.Event(), 0

        async def work(endpoint: Endpoint) -> str:
            nonlocal asked
            asked += 1
            if asked < 5:
                await never.wait()
            return endpoint.name

        await pool.run(work, Terms("x", repeat_seconds=0.01))
        assert asked == 5
        await asyncio.sleep(0)
        assert [endpoint.pace.in_flight for endpoint in pool.endpoints] == [0] * endpoints


async def test_a_repeated_request_that_fails_is_an_attempt_that_failed() -> None:
    async with pool_of(1, FAST) as pool:

        async def work(endpoint: Endpoint) -> str:
            raise EndpointTimeout(endpoint=endpoint.name, method="x", seconds=1)

        terms = Terms("x", attempts_max=2, urgent=True, repeat_seconds=0.01)
        with pytest.raises(ProvidersExhausted):
            await pool.run(work, terms)


def test_an_urgent_request_waits_for_a_refusal_and_not_for_a_failure() -> None:
    pace = Pace(concurrency_max=4, limit=1.0)
    pace.begin(0.0, 1)
    pace.begin(0.0, 1)
    pace.fail(0.0, 20.0)
    assert pace.ready_at(1.0) is None
    assert pace.ready_at(1.0, urgent=True) == 1.0
    pace.succeed()
    assert pace.ready_at(1.0) == 1.0, "it answers: what failed before is no reason to wait"
    pace.begin(1.0, 1)
    pace.refuse(1.0, 5.0)
    assert pace.ready_at(2.0, urgent=True) == 6.0
    pace.begin(2.0, 1)
    pace.succeed()
    assert pace.ready_at(2.0) == 6.0, "a refusal holds, whatever else is answered"


async def test_a_hedge_that_fails_does_not_hurt() -> None:
    limits = replace(FAST, hedge_after_seconds=0.01)
    async with pool_of(2, limits) as pool:
        second_failed = asyncio.Event()
        asked: list[Endpoint] = []

        async def work(endpoint: Endpoint) -> str:
            asked.append(endpoint)
            if len(asked) == 1:
                await second_failed.wait()
                return "slow but good"
            second_failed.set()
            raise EndpointTimeout(endpoint=endpoint.name, method="x", seconds=1)

        assert (await pool.run(work, ANY)).value == "slow but good"


async def test_a_rate_limit_pauses_only_that_endpoint() -> None:
    clock = Clock()
    async with pool_of(2, clock=clock) as pool:
        first: list[Endpoint] = []

        async def work(endpoint: Endpoint) -> Endpoint:
            if not first:
                first.append(endpoint)
                raise RateLimited(endpoint=endpoint.name, retry_after_seconds=30)
            return endpoint

        assert (await pool.run(work, ANY)).endpoint is not first[0]
        for _ in range(5):
            assert (await pool.run(work, ANY)).endpoint is not first[0]
        assert first[0].health(clock.now).paused_seconds == 30
        clock.now += 31
        seen = {(await pool.run(work, Terms("x", prefer=first[0]))).endpoint for _ in range(2)}
        assert first[0] in seen


async def test_a_long_retry_after_is_cut() -> None:
    clock = Clock()
    async with pool_of(2, clock=clock) as pool:

        async def work(endpoint: Endpoint) -> None:
            if endpoint is pool.endpoints[0]:
                raise RateLimited(endpoint=endpoint.name, retry_after_seconds=1e9)

        await pool.run(work, Terms("x", prefer=pool.endpoints[0]))
        assert pool.endpoints[0].pace.paused_until <= clock.now + FAST.retry_after_seconds_max


async def test_a_refused_key_rests_long_while_others_serve() -> None:
    clock = Clock()
    async with pool_of(2, replace(FAST, backoff_seconds_max=10.0), clock) as pool:

        async def work(endpoint: Endpoint) -> Endpoint:
            if endpoint is pool.endpoints[0]:
                raise AccessRefused(endpoint=endpoint.name, status=401, method="x")
            return endpoint

        for _ in range(4):
            served = await pool.run(work, Terms("x", prefer=pool.endpoints[0]))
            assert served.endpoint is pool.endpoints[1]
        assert pool.endpoints[0].errors == 1


async def test_an_absent_block_does_not_slow_the_endpoint() -> None:
    async with pool_of(2) as pool:
        limit = pool.endpoints[0].pace.limit

        async def work(endpoint: Endpoint) -> Endpoint:
            if endpoint is pool.endpoints[0]:
                raise BlockNotServed(endpoint=endpoint.name, block=1)
            return endpoint

        await pool.run(work, Terms("x", prefer=pool.endpoints[0]))
        assert pool.endpoints[0].pace.limit == limit
        assert pool.endpoints[0].pace.paused_until == 0.0


async def test_quarantine_has_reason_and_end_and_grows() -> None:
    clock = Clock()
    async with pool_of(2, clock=clock) as pool:
        liar = pool.endpoints[0]
        pool.quarantine_endpoint(liar, LIE)
        quarantined = pool.snapshot()[0].quarantined
        assert quarantined is not None
        assert quarantined.code == "HR-2220"
        assert quarantined.until == clock.now + FAST.quarantine_seconds
        for _ in range(4):
            assert (await pool.run(name_of, Terms("x", prefer=liar))).endpoint is not liar
        clock.now += FAST.quarantine_seconds
        assert pool.snapshot()[0].quarantined is None
        pool.quarantine_endpoint(liar, LIE)
        again = pool.snapshot()[0].quarantined
        assert again is not None
        assert again.until == clock.now + 2 * FAST.quarantine_seconds


async def test_all_quarantined_says_why_for_each() -> None:
    async with pool_of(2) as pool:
        for endpoint in pool.endpoints:
            pool.quarantine_endpoint(endpoint, LIE)
        with pytest.raises(ProvidersQuarantined, match=r"host0.*receipts.*host1.*receipts"):
            await pool.run(name_of, ANY)


async def test_a_waiter_is_told_when_the_last_endpoint_is_quarantined() -> None:
    limits = replace(FAST, concurrency_start=1, concurrency_max=1)
    async with pool_of(1, limits) as pool:
        done = asyncio.Event()

        async def wait(endpoint: Endpoint) -> None:
            await done.wait()

        busy = asyncio.ensure_future(pool.run(wait, ANY))
        waiter = asyncio.ensure_future(pool.run(name_of, ANY))
        await settle()
        pool.quarantine_endpoint(pool.endpoints[0], LIE)
        with pytest.raises(ProvidersQuarantined):
            await waiter
        done.set()
        await busy


async def test_pruned_everywhere_is_said_at_once() -> None:
    async with pool_of(2) as pool:
        for endpoint in pool.endpoints:
            endpoint.can.history_floor = 100
        with pytest.raises(HistoryPruned):
            await pool.run(name_of, Terms("x", oldest_block=99))
        assert (await pool.run(name_of, Terms("x", oldest_block=100))).value


async def test_rates_are_learnt_from_a_real_429() -> None:
    """A server that allows so many calls a second is soon asked no more than that."""
    limits = replace(FAST, retry_attempts_max=200, concurrency_start=8)
    refused = served = 0
    async with FakeNode(fake_chain(3)) as node:
        tokens = 2.0

        def bucket(body: object) -> web.Response | None:
            nonlocal tokens, refused, served
            tokens += 0.6
            if tokens < 1:
                refused += 1
                return web.Response(status=429, headers={"Retry-After": "0"})
            tokens -= 1
            served += 1
            return None

        node.intercept = bucket
        async with ProviderPool([node.url], limits) as pool:
            call = [RpcCall("eth_chainId", ())]
            work = lambda endpoint: endpoint.ask(call)  # noqa: E731
            await asyncio.gather(*(pool.run(work, ANY) for _ in range(12)))
            assert served == 12
            assert refused > 0
            assert pool.endpoints[0].pace.calls_per_second is not None


async def test_batches_that_come_too_late_shrink_and_grow_again() -> None:
    limits = replace(FAST, batch_calls_max=16)
    async with FakeNode(fake_chain(3)) as node, ProviderPool([node.url], limits) as pool:
        endpoint = pool.endpoints[0]
        calls = [RpcCall("eth_chainId", ())] * 16
        for expected in (8, 4):
            node.gate = never = Gate()
            late = asyncio.create_task(endpoint.ask(calls))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await never.reached.wait()
            leap(limits.request_timeout_seconds + 1)
            with pytest.raises(EndpointTimeout):
                await late
            never.set()
            assert endpoint.can.batch_calls_timely == expected
        node.gate = None
        for _ in range(20):
            assert len(await endpoint.ask(calls)) == 16
        assert endpoint.can.batch_calls_timely == 16


def test_pace_adds_slowly_and_halves_at_once() -> None:
    pace = Pace(concurrency_max=16, limit=4.0)
    for _ in range(40):
        while pace.ready_at(0.0) is not None:
            pace.begin(0.0, 1)
        for _ in range(pace.in_flight):
            pace.succeed()
    assert pace.limit == 16.0
    pace.begin(10.0, 1)
    pace.refuse(10.0, 2.0)
    assert pace.limit == 8.0
    pace.begin(10.1, 1)
    pace.refuse(10.1, 2.0)
    assert pace.limit == 8.0, "refusals of one burst count once"
    assert pace.ready_at(10.2) == 12.1


def test_pace_spreads_calls_at_the_learnt_rate_and_forgets_it() -> None:
    pace = Pace(concurrency_max=64, limit=64.0)
    for _ in range(10):
        pace.begin(100.0, 10)
    pace.refuse(100.0, 0.0)
    assert pace.calls_per_second == pytest.approx(70.0)
    pace.begin(101.0, 7)
    assert pace.ready_at(101.0) == pytest.approx(101.1)
    for _ in range(200):
        pace.in_flight += 1
        pace.succeed()
    assert pace.calls_per_second is None


def test_pace_keeps_places_free_only_where_there_are_several() -> None:
    pace = Pace(concurrency_max=4, limit=1.0)
    assert pace.ready_at(5.0, reserve=1) == 5.0
    pace.limit = 2.0
    pace.begin(5.0, 1)
    assert pace.ready_at(5.0, reserve=1) is None
    assert pace.ready_at(5.0) == 5.0
