"""Missing segments in, proven segments out: order, bounds, liars, gaps, resumption."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web

from ingest.backfill import Backfill, SegmentRange, receipts_source
from ingest.endpoint import ReceiptsBy
from ingest.fetch import BlockPayload
from ingest.limits import IngestLimits
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool
from ingest.publish import Build, Built
from schemas.errors import HeadraceError
from schemas.errors_ingest import ChainBroken, ProvidersExhausted, ReceiptsEmpty, ReceiptsNotServed
from schemas.errors_verify import HeaderNotProvable, ReceiptsRootMismatch
from schemas.segments import Lane
from tests.ingest.fake_node import FakeNode, Fault, fake_build, fake_chain, fake_hash
from tests.ingest.patient import PATIENT

FAST = replace(PATIENT, backoff_seconds_min=0.001, backoff_seconds_max=0.002, retry_attempts_max=6)


def segments(blocks: int, size: int = 5) -> list[SegmentRange]:
    return [SegmentRange(at, at + size - 1) for at in range(0, blocks, size)]


def pool_of(*nodes: FakeNode, limits: IngestLimits = FAST) -> ProviderPool:
    return ProviderPool([node.url for node in nodes], limits, rng=random.Random(1))


async def collect(pool: ProviderPool, missing: Sequence[SegmentRange], **extra: Any) -> list[Built]:
    backfill = Backfill(pool, receipts_source(ProvenFetcher(pool, fake_build)), **extra)
    return [built async for built in backfill.run(missing)]


def hashes(built: Sequence[Built]) -> list[tuple[int, int, str]]:
    return [(b.from_block, b.to_block, "0x" + b.last_hash.hex()) for b in built]


def truth(node: FakeNode, missing: Sequence[SegmentRange]) -> list[tuple[int, int, str]]:
    return [(s.from_block, s.to_block, node.canonical[s.to_block].hash) for s in missing]


async def test_segments_come_whole_and_in_order() -> None:
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        assert hashes(await collect(pool, segments(100))) == truth(node, segments(100))
        assert node.calls["eth_getBlockReceipts"] == 100
        assert node.requests == 20, "one request a segment"


async def test_only_what_is_missing_is_asked() -> None:
    missing = [SegmentRange(10, 14), SegmentRange(40, 44), SegmentRange(45, 49)]
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        assert hashes(await collect(pool, missing)) == truth(node, missing)
        assert node.calls["eth_getBlockByNumber"] == 15


async def test_a_liar_is_quarantined_and_nothing_of_it_is_yielded() -> None:
    chain = fake_chain(60)
    async with FakeNode(chain) as honest, FakeNode(chain) as liar, pool_of(liar, honest) as pool:
        wrong = [{"transactionHash": "0x1", "blockHash": fake_hash("other"), "logs": []}]
        liar.overrides["eth_getBlockReceipts"] = lambda _: wrong
        assert hashes(await collect(pool, segments(60))) == truth(honest, segments(60))
        health = {h.name: h for h in pool.snapshot()}
        lied = health[pool.endpoints[0].name].quarantined
        assert lied is not None
        assert lied.code == ReceiptsRootMismatch.code
        assert health[pool.endpoints[1].name].quarantined is None


def build_refusing(missing: str) -> Build:
    """`fake_build`, for which a header with a null field cannot be hashed."""

    def build(payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
        for payload in payloads:
            if json.loads(bytes(payload.block)).get(missing, "") is None:
                raise HeaderNotProvable(number="1", hash="0x", field=missing, value="null")
        return fake_build(payloads, lane, observed_at_ms)

    return build


@pytest.mark.parametrize("others", [0, 1])
async def test_a_header_of_another_form_is_no_lie_unless_another_endpoint_has_it_whole(
    others: int,
) -> None:
    chain, fetcher = fake_chain(20), build_refusing("nonce")
    async with FakeNode(chain) as strange, FakeNode(chain) as whole:
        strange.overrides["eth_getBlockByNumber"] = lambda block_id, full: {
            **(strange.block(block_id, full) or {}),
            "nonce": None,
        }
        async with pool_of(strange, *[whole][:others]) as pool:
            backfill = Backfill(pool, receipts_source(ProvenFetcher(pool, fetcher)))
            if others:
                built = [one async for one in backfill.run(segments(20))]
                assert hashes(built) == truth(whole, segments(20))
                quarantine = pool.endpoints[0].quarantine
                assert quarantine is not None
                assert quarantine.code == HeaderNotProvable.code
                assert quarantine.reason.startswith(pool.endpoints[0].name)
            else:
                with pytest.raises(HeaderNotProvable, match="nonce"):
                    _ = [one async for one in backfill.run(segments(20))]
                assert pool.endpoints[0].quarantine is None


async def test_what_the_chain_does_not_let_prove_is_reported_once() -> None:
    words = ("transactions: types unknown to this version: 0x7e", "withdrawals")

    def build(payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
        built = fake_build(payloads, lane, observed_at_ms)
        return Built(built.blocks, replace(built.logs, unproven=words))

    async with FakeNode(fake_chain(20)) as node, pool_of(node) as pool:
        backfill = Backfill(pool, receipts_source(ProvenFetcher(pool, build)))
        with structlog.testing.capture_logs() as logs:
            assert len([one async for one in backfill.run(segments(20))]) == 4
    assert [entry["what"] for entry in logs if entry["event"] == "not_provable"] == [words[0]]


async def test_the_only_endpoint_lying_ends_in_the_proof_that_failed() -> None:
    async with FakeNode(fake_chain(10)) as liar, pool_of(liar) as pool:
        liar.overrides["eth_getBlockReceipts"] = lambda _: [{"blockHash": "0x"}]
        with pytest.raises(ReceiptsRootMismatch):
            await collect(pool, segments(5))


@pytest.mark.parametrize("answer", [None, []])
async def test_null_receipts_are_asked_again_elsewhere_and_never_taken_for_none(
    answer: object,
) -> None:
    chain = fake_chain(30)
    async with FakeNode(chain) as good, FakeNode(chain) as pruned, pool_of(pruned, good) as pool:
        pruned.overrides["eth_getBlockReceipts"] = lambda _: answer
        assert hashes(await collect(pool, segments(30))) == truth(good, segments(30))
        assert all(endpoint.quarantine is None for endpoint in pool.endpoints)


@pytest.mark.parametrize(("answer", "kind"), [(None, ReceiptsNotServed), ([], ReceiptsEmpty)])
async def test_receipts_missing_for_ever_end_in_a_coded_error(
    answer: object, kind: type[HeadraceError]
) -> None:
    async with FakeNode(fake_chain(10)) as node, pool_of(node) as pool:
        node.overrides["eth_getBlockReceipts"] = lambda _: answer
        with pytest.raises(ProvidersExhausted) as caught:
            await collect(pool, segments(10))
        assert isinstance(caught.value.data["last"], kind)


@pytest.mark.parametrize(
    ("missing", "way"),
    [
        ({"eth_getBlockReceipts"}, ReceiptsBy.transaction),
        ({"eth_getBlockReceipts", "eth_getTransactionReceipt"}, ReceiptsBy.logs),
    ],
)
async def test_the_next_best_way_to_receipts_is_learnt(missing: set[str], way: ReceiptsBy) -> None:
    async with FakeNode(fake_chain(40)) as node, pool_of(node) as pool:
        node.missing = missing
        node.overrides["eth_getLogs"] = lambda query: [{"blockHash": query["blockHash"]}]
        assert hashes(await collect(pool, segments(40))) == truth(node, segments(40))
        assert pool.endpoints[0].can.receipts_by is way
        assert node.calls["eth_getBlockReceipts"] < 40, "not asked again once refused"


@pytest.mark.parametrize("by_hash", [True, False])
async def test_a_block_whose_receipts_fail_for_ever_is_had_by_its_transactions(
    by_hash: bool,
) -> None:
    async with FakeNode(fake_chain(20)) as node, pool_of(node) as pool:
        bad = node.canonical[11]

        def receipts(block: str) -> object:
            if block in {bad.hash, hex(bad.number)}:
                raise Fault(-32000, "the receipts could not be read")
            return node.block_receipts(block)

        node.overrides["eth_getBlockReceipts"] = receipts
        pool.endpoints[0].can.receipts_by_hash = by_hash
        assert len(bad.transactions) == 2
        assert hashes(await collect(pool, segments(20))) == truth(node, segments(20))
        assert pool.endpoints[0].can.receipts_by is ReceiptsBy.block
        assert node.calls["eth_getTransactionReceipt"] == 2


async def test_receipts_that_fail_both_ways_name_both_calls() -> None:
    async with FakeNode(fake_chain(20)) as node, pool_of(node) as pool:

        def fail(_: object) -> object:
            raise Fault(-32000, "the receipts could not be read")

        node.overrides["eth_getBlockReceipts"] = fail
        node.overrides["eth_getTransactionReceipt"] = fail
        with pytest.raises(ProvidersExhausted) as caught:
            await collect(pool, segments(20))
        last = str(caught.value.data["last"])
        assert "eth_getBlockReceipts, and then eth_getTransactionReceipt," in last


async def test_batches_shrink_to_what_the_endpoint_takes() -> None:
    async with FakeNode(fake_chain(40)) as node, pool_of(node) as pool:
        node.batch_calls_max = 3
        assert hashes(await collect(pool, segments(40))) == truth(node, segments(40))
        assert pool.endpoints[0].can.batch_calls_max <= 3


async def test_an_endpoint_without_batches_is_served_by_single_calls() -> None:
    async with FakeNode(fake_chain(20)) as node, pool_of(node) as pool:
        node.batch_calls_max = 0
        assert hashes(await collect(pool, segments(20))) == truth(node, segments(20))
        assert pool.endpoints[0].can.batch_calls_max == 1


async def test_answers_above_the_bound_are_asked_in_parts() -> None:
    limits = replace(FAST, response_bytes_max=6_000)
    async with FakeNode(fake_chain(40)) as node, pool_of(node, limits=limits) as pool:
        assert hashes(await collect(pool, segments(40, 20))) == truth(node, segments(40, 20))


async def test_a_false_segment_that_is_consistent_is_found_by_its_neighbour() -> None:
    chain = fake_chain(40)
    fork = chain[:10] + fake_chain(5, "false", chain[9]) + chain[15:]
    async with (
        FakeNode(chain) as honest,
        FakeNode(fork) as liar,
        FakeNode(chain) as other,
        pool_of(liar, honest, other) as pool,
    ):
        known = {39: bytes.fromhex(chain[39].hash[2:])}
        built = await collect(pool, segments(40), known_hashes=known)
        assert hashes(built) == truth(honest, segments(40))


async def test_two_branches_that_nobody_settles_end_in_a_coded_error() -> None:
    chain, fork = fake_chain(20), fake_chain(20, "b")
    async with FakeNode(fork) as node, pool_of(node) as pool:
        known = {19: bytes.fromhex(chain[19].hash[2:])}
        with pytest.raises(ChainBroken):
            await collect(pool, segments(20), known_hashes=known)


async def test_faults_of_every_kind_lose_nothing() -> None:
    rng = random.Random(20)
    faults = [
        lambda: web.Response(status=503, text="busy"),
        lambda: web.Response(status=429, headers={"Retry-After": "0"}),
        lambda: web.Response(text="<html>hello</html>", content_type="text/html"),
        lambda: web.Response(text='[{"jsonrpc":"2.0","id":1,"resu', content_type="text/json"),
        lambda: web.Response(text="nonsense"),
        lambda: web.json_response([]),
    ]
    chain = fake_chain(100)
    limits = replace(FAST, retry_attempts_max=30)
    async with (
        FakeNode(chain) as one,
        FakeNode(chain) as two,
        pool_of(one, two, limits=limits) as pool,
    ):
        for node in (one, two):
            node.intercept = lambda _: rng.choice(faults)() if rng.random() < 0.4 else None
        assert hashes(await collect(pool, segments(100))) == truth(one, segments(100))


async def test_what_is_fetched_ahead_is_bounded() -> None:
    limits = replace(FAST, window_segments_max=3)
    async with FakeNode(fake_chain(100)) as node, pool_of(node, limits=limits) as pool:
        backfill = Backfill(pool, receipts_source(ProvenFetcher(pool, fake_build)))
        stream = backfill.run(segments(100))
        await anext(stream)
        await asyncio.sleep(0)
        assert node.requests <= 6
        assert backfill.progress.segments_in_window <= 3
        await stream.aclose()


async def test_stopping_early_cancels_what_is_in_flight() -> None:
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        stream = Backfill(pool, receipts_source(ProvenFetcher(pool, fake_build))).run(segments(100))
        await anext(stream)
        await stream.aclose()
        assert pool.endpoints[0].pace.in_flight == 0


async def test_a_pruned_endpoint_is_not_asked_for_old_blocks_again() -> None:
    chain = fake_chain(60)
    async with FakeNode(chain) as full, FakeNode(chain) as pruned, pool_of(pruned, full) as pool:

        def gone(call: dict[str, Any]) -> dict[str, Any]:
            fault = {"code": 4444, "message": "pruned history unavailable"}
            return {"jsonrpc": "2.0", "id": call["id"], "error": fault}

        pruned.intercept = lambda body: web.json_response([gone(call) for call in body])
        assert hashes(await collect(pool, segments(60))) == truth(full, segments(60))
        assert pool.endpoints[0].can.history_floor > 0
        assert json.dumps(pool.snapshot()[0].last_error)
