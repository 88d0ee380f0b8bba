"""A node's heads in, observed headers, finality and blocks out."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web

from ingest.head import HeadFollower
from ingest.headwindow import HeadHeader
from ingest.limits import IngestLimits
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool
from schemas.chains import ChainFacts, load_chains
from schemas.errors import HeadraceError
from schemas.errors_canon import ReorgBelowFinalized
from tests.ingest.fake_node import FakeBlock, FakeNode, fake_build, fake_chain
from tests.ingest.head_sink import HeadSink
from tests.ingest.patient import PATIENT
from tests.patience import PATIENCE_SECONDS

FAST = replace(
    PATIENT,
    backoff_seconds_min=0.001,
    backoff_seconds_max=0.01,
    retry_attempts_max=4,
    head_poll_seconds_min=0.005,
    head_poll_seconds_max=0.005,
    head_watchdog_seconds=0.02,
    finality_poll_seconds_min=0.005,
    websocket_retry_seconds=0.02,
)
LOCAL = replace(load_chains()["local"], block_time_seconds=0.01)
DEPTH = replace(LOCAL, finality="depth", finality_depth_blocks=3)


def header(block: FakeBlock) -> HeadHeader:
    return HeadHeader(
        block.number, bytes.fromhex(block.hash[2:]), bytes.fromhex(block.parent_hash[2:])
    )


@contextlib.asynccontextmanager
async def following(
    *nodes: FakeNode,
    known: Sequence[FakeBlock],
    chain: ChainFacts = LOCAL,
    limits: IngestLimits = FAST,
) -> AsyncIterator[tuple[HeadSink, HeadFollower, asyncio.Task[None]]]:
    sink = HeadSink()
    async with ProviderPool([node.url for node in nodes], limits, rng=random.Random(3)) as pool:
        fetcher = ProvenFetcher(pool, fake_build)
        follower = HeadFollower(fetcher, chain, 7, [header(block) for block in known], sink)
        task = asyncio.create_task(follower.run())
        try:
            yield sink, follower, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_gap_between_history_and_head_is_filled_ancestors_first() -> None:
    chain = fake_chain(60)
    async with FakeNode(chain) as node, following(node, known=chain[:10]) as (sink, _, _task):
        await sink.until(lambda s: s.holds(chain[10:]))
        assert sink.head_hashes()[:50] == [block.hash for block in chain[10:]]
        assert [head.is_head for head in sink.heads[:50]] == [False] * 49 + [True]
        assert len(sink.blocks) == len(set(sink.blocks)) == 50
        assert node.calls["eth_getBlockByHash"] <= 60, "the gap is walked by height, in batches"


async def test_the_head_lane_can_begin_with_genesis() -> None:
    chain = fake_chain(5)
    before = FakeBlock(-1, "0x" + "00" * 32, "0x" + "00" * 32)
    async with FakeNode(chain) as node, following(node, known=[before]) as (sink, *_):
        await sink.until(lambda s: s.holds(chain))
        assert sink.head_hashes()[:5] == [block.hash for block in chain]


async def test_polling_sees_every_new_block_once() -> None:
    chain = fake_chain(20)
    async with FakeNode(chain[:10]) as node, following(node, known=chain[:10]) as (sink, *_):
        for block in chain[10:]:
            await node.extend([block])
            await sink.until(lambda s, block=block: s.holds([block]))
        assert sink.blocks == [(block.number, block.hash) for block in chain[10:]]


async def test_heads_come_by_websocket_where_there_is_one() -> None:
    chain = fake_chain(30)
    slow = replace(FAST, head_watchdog_seconds=3600.0, finality_poll_seconds_min=3600.0)
    async with FakeNode(chain[:10]) as node:
        node.websocket = True
        async with following(node, known=chain[:10], limits=slow) as (sink, follower, _):
            async with asyncio.timeout(PATIENCE_SECONDS):
                # A first poll may take the lead meanwhile: then it subscribes once more.
                while not follower.progress().by_websocket:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.01)
            for block in chain[10:]:
                await node.extend([block])
            await sink.until(lambda s: s.holds(chain[10:]))
            assert follower.progress().by_websocket


async def test_a_silent_websocket_is_outrun_by_the_watchdog() -> None:
    chain = fake_chain(20)
    async with FakeNode(chain[:10]) as node:
        node.websocket = True
        async with following(node, known=chain[:10]) as (sink, *_):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await node.subscribed.wait()
            node.sockets.clear()
            await node.extend(chain[10:])
            await sink.until(lambda s: s.holds(chain[10:]))


async def test_a_closed_websocket_leaves_polling_and_comes_back() -> None:
    chain = fake_chain(30)
    async with FakeNode(chain[:10]) as node:
        node.websocket = True
        async with following(node, known=chain[:10]) as (sink, *_):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await node.subscribed.wait()
            node.subscribed.clear()
            await node.sockets.pop().close()
            await node.extend(chain[10:20])
            await sink.until(lambda s: s.holds(chain[10:20]))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await node.subscribed.wait()
            await node.extend(chain[20:])
            await sink.until(lambda s: s.holds(chain[20:]))


async def test_a_reorg_shows_the_new_branch_and_fetches_its_blocks() -> None:
    chain = fake_chain(20)
    branch = fake_chain(6, "b", chain[14])
    async with FakeNode(chain) as node, following(node, known=chain[:15]) as (sink, *_):
        await sink.until(lambda s: s.holds(chain[15:]))
        await node.extend(branch, drop=5)
        await sink.until(lambda s: s.holds(branch))
        assert sink.last_head() == branch[-1].hash


async def test_a_shorter_branch_and_the_way_back_are_told() -> None:
    chain = fake_chain(20)
    branch = fake_chain(2, "b", chain[14])
    async with FakeNode(chain) as node, following(node, known=chain[:15]) as (sink, *_):
        await sink.until(lambda s: s.holds(chain[15:]))
        await node.extend(branch, drop=5)
        await sink.until(lambda s: s.last_head() == branch[-1].hash)
        await node.extend(chain[15:], drop=2)
        await sink.until(lambda s: s.last_head() == chain[-1].hash)
        assert len(sink.blocks) == len(set(sink.blocks)), "known blocks are not fetched again"


async def test_a_rollback_to_the_parent_is_told_once_it_is_confirmed() -> None:
    chain = fake_chain(20)
    async with FakeNode(chain) as node, following(node, known=chain[:15]) as (sink, *_):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        await node.extend([], drop=1)
        await sink.until(lambda s: s.last_head() == chain[18].hash)


async def test_a_lagging_answer_is_not_taken_for_a_rollback() -> None:
    chain = fake_chain(20)
    async with FakeNode(chain) as node, following(node, known=chain[:15]) as (sink, *_):
        await sink.until(lambda s: s.last_head() == chain[19].hash)

        def lagging(block_id: str, whole: bool) -> Any:
            block = chain[17] if block_id == "latest" else node.find(block_id)
            return None if block is None else block.header() | {"transactions": []}

        node.overrides["eth_getBlockByNumber"] = lagging
        await node.asked("eth_getBlockByNumber", 40)
        assert sink.last_head() == chain[19].hash


async def test_a_lagging_leader_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.head.STALE_SECONDS_MIN", 0.05)
    chain = fake_chain(40)
    async with (
        FakeNode(chain[:20]) as stuck,
        FakeNode(chain[:20]) as moving,
        following(stuck, moving, known=chain[:20]) as (sink, follower, _),
    ):
        await sink.until(lambda s: bool(s.heads))
        leader = follower.progress().leader
        other = moving if str(stuck._server.port) in leader else stuck
        led: list[str] = []

        def followed(seen: HeadSink) -> bool:
            led.append(follower.progress().leader)
            return seen.holds(other.canonical[20:])

        for block in chain[20:]:
            await other.extend([block])
            await sink.until(followed)
        assert set(led) - {leader}


async def test_finality_by_tags_only_advances_over_known_blocks() -> None:
    chain = fake_chain(30)
    async with FakeNode(chain) as node, following(node, known=chain[:10]) as (sink, *_):
        node.finalized = 12
        await sink.until(lambda s: any(f.number == 12 for f in s.finality))
        node.finalized = 20
        await sink.until(lambda s: any(f.number == 20 for f in s.finality))
        final = [f for f in sink.finality if f.kind == "finalized"]
        assert [f.number for f in final] == sorted({f.number for f in final})
        assert final[-1].hash == bytes.fromhex(chain[20].hash[2:])


async def test_finality_by_depth() -> None:
    chain = fake_chain(30)
    async with (
        FakeNode(chain[:20]) as node,
        following(node, known=chain[:10], chain=DEPTH) as (sink, *_),
    ):
        await sink.until(lambda s: any(f.number == 16 for f in s.finality))
        await node.extend(chain[20:])
        await sink.until(lambda s: any(f.number == 26 for f in s.finality))
        assert {f.kind for f in sink.finality} == {"finalized"}
        await sink.until(lambda s: s.holds(chain[10:]))


async def ended(task: asyncio.Task[None]) -> HeadraceError:
    """What ended the following."""
    with pytest.raises(HeadraceError) as caught:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task
    return caught.value


@pytest.mark.parametrize("blocks", [1, 8, 12, 15], ids=["far lower", "lower", "as high", "higher"])
async def test_a_chain_without_our_final_block_ends_the_following(blocks: int) -> None:
    chain = fake_chain(20)
    branch = fake_chain(max(blocks, 6), "b", chain[7])
    async with FakeNode(chain) as node, following(node, known=chain[10:15]) as (sink, _, task):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        polls = node.requests
        await node.extend(branch, drop=12)
        error = await ended(task)
        assert isinstance(error, ReorgBelowFinalized)
        assert error.data == {"head": branch[-1].number, "finalized": 10, "to_block": 9}
        assert node.requests - polls <= 12, "two polls say it, and a walk that had begun"
        assert {b.hash for b in branch}.isdisjoint(sink.head_hashes()), "a dead chain is not told"


async def test_a_chain_that_was_reset_ends_the_following() -> None:
    chain, other = fake_chain(20), fake_chain(4, "other")
    before = FakeBlock(-1, "0x" + "00" * 32, "0x" + "00" * 32)
    async with FakeNode(chain) as node, following(node, known=[before]) as (sink, _, task):
        await sink.until(lambda s: any(f.number == 0 for f in s.finality))
        await node.extend(other, drop=20)
        assert isinstance(await ended(task), ReorgBelowFinalized)
        assert sink.last_head() == chain[19].hash


async def test_a_head_that_stays_below_our_final_block_ends_the_following_in_time() -> None:
    chain = fake_chain(20)
    limits = replace(FAST, final_absent_seconds=0.05)
    async with (
        FakeNode(chain) as node,
        following(node, known=chain[10:15], limits=limits) as (sink, _, task),
    ):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        await node.extend([], drop=12)
        error = await ended(task)
        assert isinstance(error, ReorgBelowFinalized)
        assert error.data["head"] == 7


async def test_a_gateway_whose_node_lags_below_our_final_block_does_not() -> None:
    chain = fake_chain(30)
    async with FakeNode(chain[:20]) as node, following(node, known=chain[10:15]) as (sink, f, task):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        await node.extend([], drop=12)
        await node.asked("eth_getBlockByNumber", 40)
        await node.extend(chain[8:])
        await sink.until(lambda s: s.last_head() == chain[29].hash)
        assert not task.done()
        assert f.progress().silent is None


async def test_of_several_endpoints_the_one_that_denies_our_final_block_is_left() -> None:
    chain = fake_chain(40)
    branch = fake_chain(30, "b", chain[7])
    async with (
        FakeNode(chain[:20]) as first,
        FakeNode(chain[:20]) as second,
        FakeNode(chain[:20]) as third,
        following(first, second, third, known=chain[10:15]) as (sink, follower, task),
    ):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        nodes = (first, second, third)
        leader = next(n for n in nodes if str(n._server.port) in follower.progress().leader)
        await leader.extend(branch, drop=12)
        for node in nodes:
            if node is not leader:
                await node.extend(chain[20:])
        await sink.until(lambda s: s.last_head() == chain[39].hash)
        assert not task.done()
        assert {b.hash for b in branch}.isdisjoint(sink.head_hashes())


async def test_where_most_endpoints_deny_our_final_block_the_following_ends() -> None:
    chain = fake_chain(20)
    branch = fake_chain(6, "b", chain[7])
    async with (
        FakeNode(chain) as first,
        FakeNode(chain) as second,
        FakeNode(chain) as third,
        following(first, second, third, known=chain[10:15]) as (sink, follower, task),
    ):
        await sink.until(lambda s: s.last_head() == chain[19].hash)
        nodes = (first, second, third)
        leader = next(n for n in nodes if str(n._server.port) in follower.progress().leader)
        other = next(n for n in nodes if n is not leader)
        for node in (leader, other):
            await node.extend(branch, drop=12)
        assert isinstance(await ended(task), ReorgBelowFinalized)


async def test_a_block_not_served_yet_is_asked_again_until_it_is() -> None:
    chain = fake_chain(12)
    async with FakeNode(chain[:10]) as node, following(node, known=chain[:10]) as (sink, *_):
        hidden = True
        node.overrides["eth_getBlockReceipts"] = lambda block_id: (
            None if hidden else node.block_receipts(block_id)
        )
        await node.extend(chain[10:])
        await sink.until(lambda s: s.last_head() == chain[11].hash)
        assert not sink.blocks
        hidden = False
        await sink.until(lambda s: s.holds(chain[10:]))


async def test_a_block_that_left_the_chain_unfetched_is_dropped() -> None:
    chain = fake_chain(12)
    branch = fake_chain(3, "b", chain[9])
    async with FakeNode(chain[:10]) as node, following(node, known=chain[:10]) as (sink, f, _):
        gone = {block.hash for block in chain[10:]}
        node.overrides["eth_getBlockByHash"] = lambda block_id, whole: (
            None if block_id in gone else node.block(block_id, whole)
        )
        await node.extend(chain[10:])
        await node.extend(branch, drop=2)
        await sink.until(lambda s: s.holds(branch))
        while f.progress().bodies_waiting:
            await node.asked("eth_getBlockByNumber", 1)


async def test_a_node_that_is_down_for_a_while_is_followed_again() -> None:
    chain = fake_chain(30)
    async with FakeNode(chain[:10]) as node, following(node, known=chain[:10]) as (sink, _, task):
        refused = asyncio.Event()

        def refuse(_: object) -> web.Response:
            refused.set()
            return web.Response(status=503)

        node.intercept = refuse
        await node.extend(chain[10:])
        async with asyncio.timeout(PATIENCE_SECONDS):
            await refused.wait()
        assert not task.done()
        node.intercept = None
        await sink.until(lambda s: s.holds(chain[10:]))


async def test_a_node_that_answers_nothing_is_noticed_and_followed_as_soon_as_it_answers() -> None:
    chain = fake_chain(30)
    limits = replace(FAST, head_repeat_seconds=0.02, head_silent_seconds=0.2)
    async with (
        FakeNode(chain[:10]) as node,
        following(node, known=chain[:10], limits=limits) as (sink, follower, task),
    ):
        await sink.until(lambda s: s.last_head() == chain[9].hash)
        # Requests of now are never answered, not even when the node is back.
        node.gate = hung = asyncio.Event()
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not any(entry["event"] == "head_silent" for entry in logs):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        progress = follower.progress()
        assert progress.silent is not None
        assert progress.heard_seconds_ago >= limits.head_silent_seconds
        node.gate = None
        await node.extend(chain[10:])
        await sink.until(lambda s: s.holds(chain[10:]))
        assert follower.progress().silent is None
        assert not task.done()
        hung.set()


async def test_a_block_whose_request_hangs_is_asked_for_again() -> None:
    chain = fake_chain(12)
    limits = replace(FAST, head_repeat_seconds=0.02)
    hung = asyncio.Event()
    async with (
        FakeNode(chain[:10]) as node,
        following(node, known=chain[:10], limits=limits) as (sink, *_),
    ):
        await sink.until(lambda s: s.last_head() == chain[9].hash)
        node.hold = lambda body: hung if "eth_getBlockReceipts" in str(body) else None
        await node.extend(chain[10:])
        await node.held.wait()
        node.hold = lambda _: None
        await sink.until(lambda s: s.holds(chain[10:]))
        hung.set()


@pytest.mark.parametrize("seed", range(8))
async def test_any_schedule_of_reorgs_ends_with_every_canonical_block(seed: int) -> None:
    rng = random.Random(seed)
    chain = fake_chain(10)
    async with FakeNode(chain) as node:
        node.websocket = rng.random() < 0.5
        async with following(node, known=chain[:1]) as (sink, *_):
            for step in range(25):
                drop = rng.randrange(0, min(6, len(node.canonical) - 1))
                start = node.canonical[-1 - drop]
                await node.extend(fake_chain(rng.randrange(1, 5), f"{step}", start), drop=drop)
                await asyncio.sleep(rng.random() * 0.01)
            await sink.until(
                lambda s: s.holds(node.canonical[1:]) and s.last_head() == node.head.hash
            )
            seen = {h.hash for h in sink.heads} | {bytes.fromhex(chain[0].hash[2:])}
            assert all(h.parent_hash in seen for h in sink.heads), f"seed {seed}"
            assert len(sink.blocks) == len(set(sink.blocks))
