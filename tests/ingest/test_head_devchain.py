"""A living synthetic chain in, its heads and proven blocks out, through reorgs and lies."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from infra.devchain.chain import Chain
from infra.devchain.faults import Fault
from infra.devchain.server import DevchainServer
from ingest.head import HeadFollower
from ingest.headwindow import HeadHeader
from ingest.providers import ProviderPool
from schemas.errors import HeadraceError
from schemas.tables import Verification
from tests.ingest.devchain_node import (
    CHAIN_ID,
    LOCAL,
    fetcher_of,
    pool_of,
    served,
    small_chain,
)
from tests.ingest.head_sink import HeadSink
from tests.patience import PATIENCE_SECONDS


def known_of(chain: Chain, first: int, last: int) -> list[HeadHeader]:
    return [
        HeadHeader(block.header.number, block.hash, block.header.parent_hash)
        for block in chain.blocks()[first : last + 1]
    ]


@contextlib.asynccontextmanager
async def following(
    chain: Chain, server: DevchainServer, known: tuple[int, int]
) -> AsyncIterator[tuple[HeadSink, ProviderPool, HeadFollower, asyncio.Task[None]]]:
    sink = HeadSink()
    async with pool_of(server) as pool:
        follower = HeadFollower(
            fetcher_of(pool),
            LOCAL,
            CHAIN_ID,
            known_of(chain, *known),
            sink,
        )
        task = asyncio.create_task(follower.run())
        try:
            yield sink, pool, follower, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def wanted(chain: Chain, above: int) -> set[tuple[int, str]]:
    return {
        (block.header.number, "0x" + block.hash.hex())
        for block in chain.blocks()
        if block.header.number > above
    }


async def test_every_new_block_is_proven_in_full_and_published_once() -> None:
    chain = small_chain(20)
    async with served(chain) as server, following(chain, server, (10, 15)) as (sink, *_):
        await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        for _ in range(10):
            chain.mine()
            await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        assert len(sink.blocks) == len(set(sink.blocks))
        assert set(sink.levels) == {Verification.full}


async def test_finality_follows_the_tags() -> None:
    chain = small_chain(20, finality_depth=6)
    async with served(chain) as server, following(chain, server, (10, 15)) as (sink, *_):
        chain.mine(5)
        await sink.until(
            lambda s: any(f.kind == "finalized" and f.number == 19 for f in s.finality)
        )
        await sink.until(lambda s: any(f.kind == "safe" and f.number == 21 for f in s.finality))


@pytest.mark.parametrize("seed", range(6))
async def test_reorgs_at_any_moment_leave_every_canonical_block(seed: int) -> None:
    rng = random.Random(seed)
    chain = small_chain(20, seed=seed + 1, finality_depth=16)
    async with served(chain) as server, following(chain, server, (5, 15)) as (sink, *_):
        for _ in range(12):
            if rng.random() < 0.5:
                chain.reorg(rng.randrange(1, 7), rng.randrange(1, 8))
            else:
                chain.mine(rng.randrange(1, 4))
            await asyncio.sleep(rng.random() * 0.02)
        head = "0x" + chain.head.hash.hex()
        await sink.until(lambda s: s.last_head() == head and wanted(chain, 15) <= set(s.blocks))
        assert len(sink.blocks) == len(set(sink.blocks)), f"seed {seed}"


async def test_a_rollback_and_the_return_to_a_former_head() -> None:
    chain = small_chain(20)
    first = chain.head.hash
    async with served(chain) as server, following(chain, server, (10, 15)) as (sink, *_):
        await sink.until(lambda s: s.last_head() == "0x" + first.hex())
        chain.reorg(3, 0)
        shorter = "0x" + chain.head.hash.hex()
        await sink.until(lambda s: s.last_head() == shorter)
        chain.switch(first)
        await sink.until(lambda s: s.last_head() == "0x" + first.hex())


@pytest.mark.parametrize("lie", ["omit_logs", "alter_logs", "alter_receipt", "alter_transaction"])
async def test_a_lying_leader_is_quarantined_and_the_head_goes_on(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing but the lie makes it another's turn to lead.
    monkeypatch.setattr("ingest.head.STALE_SECONDS_MIN", 3600.0)
    chain = small_chain(20)
    async with served(chain, 2) as server, following(chain, server, (10, 15)) as (sink, pool, f, _):
        await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        leader = [e.name for e in pool.endpoints].index(f.progress().leader)
        server.endpoints[leader].faults.add(Fault(lie))
        # While it is busy the other is asked in its place.
        while pool.snapshot()[leader].quarantined is None:
            assert f.progress().leader == pool.endpoints[leader].name
            chain.mine(6)
            await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        assert pool.snapshot()[1 - leader].quarantined is None


async def test_the_only_endpoint_lying_ends_the_following_with_what_was_false() -> None:
    chain = small_chain(20)
    async with served(chain) as server, following(chain, server, (10, 15)) as (sink, _, _f, task):
        await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        server.endpoints[0].faults.add(Fault("alter_receipt"))
        chain.mine(1)
        with pytest.raises(HeadraceError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await task
        # Whoever comes first: the block that failed, or the next poll, which quotes it.
        assert caught.value.code.startswith("HR-22") or "receipt" in str(caught.value)


@pytest.mark.parametrize("lie", ["alter_header", "alter_hash"])
async def test_false_headers_are_not_told(lie: str) -> None:
    chain = small_chain(20)
    async with served(chain, 2) as server, following(chain, server, (10, 15)) as (sink, pool, f, _):
        await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        leader = [e.name for e in pool.endpoints].index(f.progress().leader)
        server.endpoints[leader].faults.add(Fault(lie))
        for _ in range(4):
            chain.mine()
            await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        assert {("0x" + head.hash.hex()) for head in sink.heads} <= {
            "0x" + block.hash.hex() for block in chain.blocks()
        }


async def test_a_frozen_leader_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.head.STALE_SECONDS_MIN", 0.05)
    chain = small_chain(20)
    async with served(chain, 2) as server, following(chain, server, (10, 15)) as (sink, pool, f, _):
        await sink.until(lambda s: wanted(chain, 15) <= set(s.blocks))
        leader = [e.name for e in pool.endpoints].index(f.progress().leader)
        server.endpoints[leader].faults.add(Fault("frozen"))
        server.endpoints[leader].view()  # It freezes when it is first looked at.
        led: list[str | None] = []

        def followed(seen: HeadSink) -> bool:
            led.append(f.progress().leader)
            return wanted(chain, 15) <= set(seen.blocks)

        # Now and then the other is asked in its place, and is not yet the leader for that; and
        # later the other may seem stale, too.
        while pool.endpoints[1 - leader].name not in led:
            chain.mine(3)
            await sink.until(followed)
