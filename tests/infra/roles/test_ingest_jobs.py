"""An ingester's jobs on a devchain: what they send, and what becomes visible of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from infra.devchain.chain import Chain
from infra.devchain.control import set_fault
from infra.devchain.faults import Fault
from infra.devchain.server import DevchainServer
from infra.roles.ingest_head import HeadJob, check_final
from infra.roles.ingest_history import HistoryJob
from infra.roles.ingest_requests import RequestJob
from infra.roles.topic_reader import Read
from infra.settings import Limits, Settings
from infra.source import ChainSource
from ingest.acknowledged import AcknowledgedSink
from ingest.checkpoint import Checkpoint
from ingest.preflight import preflight
from ingest.providers import ProviderPool
from ingest.requests import request_envelope
from schemas.errors import HeadraceError
from schemas.errors_ingest import EndpointsBehind
from schemas.errors_ingest_role import FinalizedReplaced, HeadBridgeTooLong
from schemas.segments import (
    AGAIN,
    REQUESTS,
    BlockRef,
    BlockSpan,
    Envelope,
    IngestCheckpoint,
    SegmentWanted,
)
from tests.infra.roles.acknowledging import Acknowledging, Followers
from tests.ingest.devchain_node import CHAIN_ID, FAST, LOCAL, pool_of, served, small_chain
from tests.patience import PATIENCE_SECONDS

SETTINGS = Settings(chain="local", limits=Limits(ingest=FAST))
SOURCE = ChainSource(SETTINGS, LOCAL, CHAIN_ID)


class Life:
    """One ingester from its start to its end, over a pool of a served devchain."""

    def __init__(
        self,
        pool: ProviderPool,
        before: IngestCheckpoint | None = None,
        told: BlockRef | None = None,
        last: int | None = None,
        *,
        instance: str = "test",
        producer: Acknowledging | None = None,
    ) -> None:
        self.pool, self.producer = pool, producer or Acknowledging()
        self.checkpoint = Checkpoint(CHAIN_ID, "v", instance)
        if before is not None:
            self.checkpoint.merge(before)
        self.sink = AcknowledgedSink(self.producer, self.checkpoint)
        self.history = HistoryJob(SOURCE, pool, self.sink, self.checkpoint, 0, last)
        self.head = HeadJob(SOURCE, pool, self.sink, told or self.checkpoint.finalized)

    async def run(self, *jobs: Coroutine[Any, Any, None], until: int) -> None:
        """Run jobs until all blocks up to `until` are acknowledged."""
        tasks = [asyncio.ensure_future(job) for job in jobs]
        done = asyncio.ensure_future(self.producer.until(lambda: self.checkpoint.reached(0, until)))
        try:
            await asyncio.wait([*tasks, done], return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, done):
                if task.done():
                    task.result()
        finally:
            for task in (*tasks, done):
                task.cancel()
            await asyncio.gather(*tasks, done, return_exceptions=True)

    async def live(self, until: int) -> IngestCheckpoint:
        """Both lanes until `until` is acknowledged; the checkpoint that is left."""
        said = await preflight(self.pool, LOCAL, receipts=False)
        await self.run(self.history.run(said), self.head.run(said), until=until)
        written = self.checkpoint.take(0)
        assert written is not None
        return written


@contextlib.asynccontextmanager
async def pool_over(chain: Chain) -> AsyncIterator[tuple[ProviderPool, DevchainServer]]:
    async with served(chain) as server, pool_of(server) as pool:
        yield pool, server


def canonical(chain: Chain) -> dict[int, bytes]:
    return {block.header.number: block.hash for block in chain.blocks()}


def assert_shows(followers: Followers, chain: Chain) -> None:
    hashes = canonical(chain)
    shown = followers.canon.shown
    assert shown is not None
    assert (shown.head.number, shown.head.hash) == (max(hashes), hashes[max(hashes)])
    assert all(hashes[number] == block_hash for number, block_hash in followers.visible())


async def test_both_lanes_make_the_whole_chain_visible() -> None:
    chain = small_chain(43)
    async with pool_over(chain) as (pool, _):
        life = Life(pool)
        written = await life.live(until=chain.head.header.number)
    followers = Followers(LOCAL)
    followers.follow(life.producer.envelopes)
    assert_shows(followers, chain)
    assert life.producer.names("BlockSegment")[:1] in ([(0, 4)], [(30, 30)])
    assert written.covered[0].from_block == 0


async def test_what_is_covered_is_not_sent_again() -> None:
    chain = small_chain(43)
    async with pool_over(chain) as (pool, _):
        said = await preflight(pool, LOCAL, receipts=False)
        life = Life(pool)
        life.checkpoint.acknowledge(5, 14, b"", "history")
        await life.run(life.history.run(said), until=29)
    sent = sorted(life.producer.names("LogSegment"))
    assert sent == [(0, 4), (15, 19), (20, 24), (25, 29)]
    assert life.checkpoint.coverage().spans[0] == BlockSpan(0, life.history.end)


async def test_a_segment_counts_when_both_its_messages_are_acknowledged() -> None:
    chain = small_chain(25)
    async with pool_over(chain) as (pool, _):
        said = await preflight(pool, LOCAL, receipts=False)
        life = Life(pool, last=4)
        held = life.producer.held = []
        task = asyncio.ensure_future(life.history.run(said))
        await life.producer.until(lambda: len(held) == 2)
        assert (life.checkpoint.coverage().spans, life.sink.in_flight) == ((), 2)
        held[0]()
        assert life.checkpoint.coverage().spans == ()
        held[1]()
        assert (life.checkpoint.coverage().spans, life.sink.in_flight) == ((BlockSpan(0, 4),), 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("depth", "more"), [(0, 3), (1, 0), (8, 2), (8, 170), (9, 7), (3, 60)])
async def test_a_restart_after_a_reorg_ends_on_the_right_chain(depth: int, more: int) -> None:
    """Blocks that were visible and are replaced while no ingester ran leave by a reorg."""
    chain = small_chain(43)
    followers = Followers(LOCAL)
    async with pool_over(chain) as (pool, _):
        life = Life(pool)
        before = await life.live(until=chain.head.header.number)
        followers.follow(life.producer.envelopes)
        assert_shows(followers, chain)
        old_head = chain.head.header.number
        if depth:
            chain.reorg(depth)
        chain.mine(more)
        again = Life(pool, before, followers.finalized)
        await again.live(until=chain.head.header.number)
    seen = len(followers.changes)
    followers.follow(again.producer.envelopes)
    assert_shows(followers, chain)
    reorgs = [change.reorg for change in followers.changes[seen:] if change.reorg is not None]
    assert sum(len(reorg.removed) for reorg in reorgs) == depth
    assert len(reorgs) == (1 if depth else 0)
    assert old_head - depth >= LOCAL.segment_start(0)


@pytest.mark.parametrize("seed", range(4))
async def test_any_number_of_downtimes_and_reorgs_ends_on_the_right_chain(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long bridges, too: every twentieth of their headers is told as a final head."""
    monkeypatch.setattr("infra.roles.ingest_head.STEP_BLOCKS", 20)
    monkeypatch.setattr("infra.roles.ingest_head.HEADERS_MAX", 7)
    rng = random.Random(seed)
    chain, followers = small_chain(rng.randrange(1, 60)), Followers(LOCAL)
    before: IngestCheckpoint | None = None
    async with pool_over(chain) as (pool, _):
        for _ in range(4):
            life = Life(pool, before, followers.finalized)
            before = await life.live(until=chain.head.header.number)
            followers.follow(life.producer.envelopes)
            assert_shows(followers, chain)
            chain.reorg(rng.randrange(1, min(10, chain.head.header.number)))
            chain.mine(rng.choice((0, 3, 12, 90)))
            if rng.random() < 0.3:
                before = None


async def test_two_ingesters_at_once_do_no_harm() -> None:
    chain, followers = small_chain(43), Followers(LOCAL)
    producer = Acknowledging()
    before: dict[str, IngestCheckpoint | None] = {"one": None, "two": None}
    seen = 0
    async with pool_over(chain) as (pool, _):
        for depth in (3, 1, 9, 2):
            head = chain.head.header.number
            lives = {
                name: Life(pool, left, followers.finalized, instance=name, producer=producer)
                for name, left in before.items()
            }
            left = await asyncio.gather(*(life.live(until=head) for life in lives.values()))
            before = dict(zip(lives, left, strict=True))
            followers.follow(producer.envelopes[seen:])
            seen = len(producer.envelopes)
            assert_shows(followers, chain)
            chain.reorg(depth)
            chain.mine(2)


async def test_a_lost_checkpoint_costs_work_and_nothing_else() -> None:
    chain = small_chain(43)
    followers = Followers(LOCAL)
    async with pool_over(chain) as (pool, _):
        life = Life(pool)
        await life.live(until=chain.head.header.number)
        followers.follow(life.producer.envelopes)
        chain.reorg(6)
        chain.mine(90)
        again = Life(pool, None, followers.finalized)
        await again.live(until=chain.head.header.number)
    followers.follow(again.producer.envelopes)
    assert_shows(followers, chain)


async def test_another_final_block_than_was_told_is_refused() -> None:
    chain = small_chain(60)
    async with pool_over(chain) as (pool, _):
        said = await preflight(pool, LOCAL, receipts=False)
        life = Life(pool, told=BlockRef(20, b"\1" * 32))
        with pytest.raises(FinalizedReplaced):
            await life.head.run(said)


async def test_a_bridge_has_an_end() -> None:
    chain = small_chain(60)
    async with pool_over(chain) as (pool, _):
        said = await preflight(pool, LOCAL, receipts=False)
        told = BlockRef(20, canonical(chain)[20])
        life = Life(pool, told=told)
        object.__setattr__(pool.limits, "head_bridge_blocks_max", 5)
        try:
            with pytest.raises(HeadBridgeTooLong):
                await life.head.run(said)
        finally:
            object.__setattr__(pool.limits, "head_bridge_blocks_max", 500_000)


def message(offset: int, value: bytes) -> Read:
    return Read(0, offset, 0, Envelope(REQUESTS, b"", value))


def a_request(first: int, last: int, **more: Any) -> Read:
    given: dict[str, Any] = {"last_hash": None, "requested_at_ms": 2**62, **more}
    wanted = SegmentWanted(
        CHAIN_ID, first, last, streams=("logs",), request_id="r", reason="", **given
    )
    return message(7, request_envelope(wanted).value)


async def serve(chain: Chain, *messages: Read) -> tuple[list[Envelope], Checkpoint]:
    """What a request job sends for some messages."""
    async with pool_over(chain) as (pool, _):
        life = Life(pool)
        waiting, done = [list(messages)], asyncio.Event()
        job = RequestJob(
            SOURCE,
            pool,
            {"history": life.sink, "head": life.sink},
            life.checkpoint,
            lambda _: waiting.pop() if waiting else [],
        )
        took = life.checkpoint.took_request

        def took_request(offset: int) -> None:
            took(offset)
            if offset > messages[-1].offset:
                done.set()

        life.checkpoint.took_request = took_request  # type: ignore[method-assign]
        task = asyncio.ensure_future(job.run(0.0))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return life.producer.envelopes, life.checkpoint


async def test_a_request_is_served_by_name_and_marked() -> None:
    chain = small_chain(43)
    envelopes, _ = await serve(chain, a_request(3, 6))
    assert {one.headers[AGAIN] for one in envelopes} == {"r"}
    assert [(one.topic, one.headers["from"], one.headers["to"]) for one in envelopes] == [
        ("raw.blocks.history", "0", "4"),
        ("raw.logs.history", "0", "4"),
        ("raw.blocks.history", "5", "9"),
        ("raw.logs.history", "5", "9"),
    ]


async def test_a_request_for_a_head_block_is_served_by_its_hash() -> None:
    chain = small_chain(43)
    block_hash = canonical(chain)[40]
    envelopes, _ = await serve(chain, a_request(40, 40, last_hash=block_hash))
    assert [(one.topic, one.headers["last_hash"]) for one in envelopes] == [
        ("raw.blocks.head", block_hash.hex()),
        ("raw.logs.head", block_hash.hex()),
    ]


async def test_requests_that_cannot_be_served_are_left_behind() -> None:
    chain = small_chain(43)
    old = a_request(0, 4, requested_at_ms=0)
    other = SegmentWanted(1, 0, 4, None, ("logs",), "r", "", 2**62)
    messages = [message(5, b"junk"), message(6, request_envelope(other).value), old]
    envelopes, checkpoint = await serve(chain, *messages)
    assert envelopes == []
    assert checkpoint.requests_offset == 8


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (None, None),
        (Fault("reset", blocks=40), FinalizedReplaced),
        (Fault("reset", blocks=5), EndpointsBehind),
        (Fault("back", blocks=30), EndpointsBehind),
        (Fault("lagging_head", blocks=3), None),
    ],
    ids=["well", "reset", "reset and lower", "set back", "lagging"],
)
@pytest.mark.parametrize("endpoints", [1, 3])
async def test_what_is_final_in_the_cluster_is_compared_with_every_endpoint_at_the_start(
    fault: Fault | None, error: type[HeadraceError] | None, endpoints: int
) -> None:
    chain = small_chain(40)
    block = chain.blocks()[20]
    told = BlockRef(20, block.hash)
    async with served(chain, endpoints) as server, pool_of(server) as pool:
        for endpoint in server.endpoints[: endpoints // 2 + 1] if fault is not None else []:
            set_fault(endpoint, fault)
        # One that confirms the block outweighs those whose heads are too low to say.
        raised = error if endpoints == 1 or error is FinalizedReplaced else None
        with contextlib.ExitStack() as expected:
            if raised is not None:
                expected.enter_context(pytest.raises(raised))
            await check_final(pool, told)


async def test_a_cluster_whose_chain_is_reset_while_it_is_followed_names_its_own_remedy() -> None:
    chain = small_chain(40, finality_depth=10)
    async with served(chain) as server, pool_of(server) as pool:
        life = Life(pool)
        said = await preflight(pool, LOCAL, receipts=False)
        task = asyncio.ensure_future(life.head.run(said))
        await life.producer.until(lambda: life.head.follower is not None)
        set_fault(server.endpoints[0], Fault("reset", blocks=50))
        with pytest.raises(FinalizedReplaced) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await task
        assert "topic_prefix" in caught.value.fix_text


async def test_history_does_not_go_on_with_a_chain_that_was_reset() -> None:
    chain = small_chain(40, finality_depth=10)
    async with served(chain) as server, pool_of(server) as pool:
        life = Life(pool)

        async def reset(_: float) -> None:
            """In the pause before more history is looked for."""
            set_fault(server.endpoints[0], Fault("reset", blocks=80))

        life.history._sleep = reset
        task = asyncio.ensure_future(life.history.run(await preflight(pool, LOCAL, receipts=False)))
        with pytest.raises(FinalizedReplaced):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await task
        assert life.checkpoint.coverage().count(30, 100) == 0, "nothing of the new chain was sent"
