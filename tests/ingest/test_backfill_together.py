"""Light segments that are adjacent share requests and proofs; what is amiss is found as ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiohttp import web

from infra.devchain.faults import Fault
from ingest.backfill import Backfill, SegmentRange, receipts_source, together_source
from ingest.fetch import BlockPayload
from ingest.prove import prover
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool
from ingest.publish import Built, segment_envelopes
from schemas.errors_verify import ReceiptsRootMismatch
from schemas.segments import Lane
from schemas.tables import Verification
from tests.ingest.devchain_node import CHAIN_ID, LOCAL, collect, fetcher_of, served, small_chain
from tests.ingest.devchain_node import pool_of as pool_of_server
from tests.ingest.devchain_node import segments as grid_segments
from tests.ingest.fake_node import FakeNode, fake_build, fake_chain
from tests.ingest.test_backfill import FAST, hashes, pool_of, segments, truth

BLOCKS = 60


def fake_together(
    parts: Sequence[Sequence[BlockPayload]], lane: Lane, observed_at_ms: int
) -> list[Built]:
    return [fake_build(part, lane, observed_at_ms) for part in parts]


def backfill_of(fetcher: ProvenFetcher) -> Backfill:
    alone, together = receipts_source(fetcher), together_source(fetcher)
    return Backfill(fetcher.pool, alone, fetch_together=together)


async def collect_fakes(pool: ProviderPool, missing: Sequence[SegmentRange]) -> list[Built]:
    backfill = backfill_of(ProvenFetcher(pool, fake_build, together=fake_together))
    return [built async for built in backfill.run(missing)]


async def collect_proven(pool: ProviderPool) -> list[Built]:
    prove = prover(LOCAL, CHAIN_ID, Verification.full)
    fetcher = ProvenFetcher(pool, prove, together=prove.together)
    return [built async for built in backfill_of(fetcher).run(grid_segments(BLOCKS))]


async def test_adjacent_segments_share_requests() -> None:
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        assert hashes(await collect_fakes(pool, segments(100))) == truth(node, segments(100))
        assert node.calls["eth_getBlockByNumber"] == node.calls["eth_getBlockReceipts"] == 100
        assert node.requests == 5, "as many calls in each as the limits allow"


async def test_only_what_is_missing_is_asked() -> None:
    missing = [SegmentRange(10, 14), SegmentRange(40, 44), SegmentRange(45, 49)]
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        assert hashes(await collect_fakes(pool, missing)) == truth(node, missing)
        assert node.calls["eth_getBlockByNumber"] == 15
        assert node.requests == 2


async def test_heavy_segments_are_fetched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.backfill.TOGETHER_BYTES_MAX", 1000)
    async with FakeNode(fake_chain(100)) as node, pool_of(node) as pool:
        assert hashes(await collect_fakes(pool, segments(100))) == truth(node, segments(100))
        assert node.requests == 20


async def test_a_block_that_nobody_proves_takes_only_its_own_segment_with_it() -> None:
    async with FakeNode(fake_chain(40)) as node, pool_of(node) as pool:
        true = node.block_receipts

        def receipts(block_id: str) -> object:
            return [{"blockHash": "0x"}] if int(block_id, 16) == 12 else true(block_id)

        node.overrides["eth_getBlockReceipts"] = receipts
        fetcher = ProvenFetcher(pool, fake_build, together=fake_together)
        stream = backfill_of(fetcher).run(segments(40))
        assert hashes([await anext(stream)]) == truth(node, segments(5))
        with pytest.raises(ReceiptsRootMismatch):
            await anext(stream)


async def test_after_a_failure_segments_are_fetched_alone_for_a_while() -> None:
    refused = [web.Response(status=503)]
    slow = replace(FAST, concurrency_start=1, concurrency_max=1)
    async with FakeNode(fake_chain(400)) as node, pool_of(node, limits=slow) as pool:
        node.intercept = lambda _: refused.pop() if refused else None
        assert hashes(await collect_fakes(pool, segments(400))) == truth(node, segments(400))
        assert node.requests > 40, "20 would do if nothing had failed"


@pytest.mark.parametrize("lie", ["omit_logs", "alter_header", "other_receipts"])
async def test_a_liar_is_found_out_and_left(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.proven.RACES_MAX", 1)
    chain = small_chain(BLOCKS + 5)
    methods = frozenset({"eth_getBlockByNumber", "eth_getBlockReceipts"})
    async with served(chain, 2) as server, pool_of_server(server) as pool:
        alone = await collect(pool, receipts_source(fetcher_of(pool)), grid_segments(BLOCKS))
        server.endpoints[0].faults.add(Fault(lie, methods=methods))
        together = await collect_proven(pool)
        assert [one.last_hash for one in together] == [one.last_hash for one in alone]
        for one, other in zip(together, alone, strict=True):
            assert [e.headers for e in segment_envelopes(one, 5)] == [
                e.headers for e in segment_envelopes(other, 5)
            ]
            assert one.logs.level == Verification.full
        assert pool.snapshot()[1].quarantined is None
        assert pool.snapshot()[0].quarantined is not None
