"""Endpoints in, the facts to begin with out, or the coded reason why not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from aiohttp import web

from ingest.endpoint import ReceiptsBy
from ingest.preflight import preflight
from ingest.providers import ProviderPool
from schemas.chains import load_chains
from schemas.errors_ingest import (
    AnswerIsHtml,
    ChainIdWrong,
    ChainsDiffer,
    ClockSkewed,
    EndpointsUnusable,
    EndpointUnreachable,
    HeadOld,
    HistoryPruned,
    MethodMissing,
    ProvidersExhausted,
    StartBeyondHead,
)
from tests.ingest.fake_node import GENESIS_TIME, FakeNode, fake_chain
from tests.ingest.patient import PATIENT

FAST = replace(PATIENT, backoff_seconds_min=0.001, backoff_seconds_max=0.002, retry_attempts_max=3)
LOCAL = load_chains()["local"]
SEVEN = replace(LOCAL, chain_id=7)


def pool_of(*urls: str, now_s: float = GENESIS_TIME + 30) -> ProviderPool:
    return ProviderPool(urls, FAST, rng=random.Random(1), now_ms=lambda: int(now_s * 1000))


async def test_the_facts_of_a_good_endpoint() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        node.finalized = 20
        facts = await preflight(pool, SEVEN, from_block=3)
        assert (facts.chain_id, facts.head.number) == (7, 29)
        assert facts.finalized is not None
        assert facts.finalized.number == 20
        assert not facts.excluded
        assert not facts.warnings


async def test_finality_by_depth() -> None:
    chain = replace(SEVEN, finality="depth", finality_depth_blocks=4)
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        finalized = (await preflight(pool, chain)).finalized
        assert finalized is not None
        assert finalized.number == 25


async def test_a_wrong_chain_names_both_ids() -> None:
    async with FakeNode(fake_chain(3), chain_id=5) as node, pool_of(node.url) as pool:
        with pytest.raises(ChainIdWrong, match=r"serves chain 5, but local is chain 7"):
            await preflight(pool, SEVEN)


async def test_one_endpoint_of_another_chain_is_left_out() -> None:
    chain = fake_chain(9)
    async with (
        FakeNode(chain, chain_id=5) as wrong,
        FakeNode(chain) as right,
        pool_of(wrong.url, right.url) as pool,
    ):
        facts = await preflight(pool, SEVEN)
        assert [error.code for _, error in facts.excluded] == [ChainIdWrong.code]
        assert [endpoint.url.http_url for endpoint in pool.usable()] == [right.url]


async def test_without_an_expected_id_endpoints_must_agree() -> None:
    chain = fake_chain(9)
    async with (
        FakeNode(chain, chain_id=5) as one,
        FakeNode(chain, chain_id=6) as two,
        pool_of(one.url, two.url) as pool,
    ):
        with pytest.raises(ChainsDiffer, match="no chain is named"):
            await preflight(pool, LOCAL)


async def test_a_web_page_is_named_as_such() -> None:
    async with FakeNode(fake_chain(3)) as node, pool_of(node.url) as pool:
        node.intercept = lambda _: web.Response(text="<!doctype html>", content_type="text/html")
        with pytest.raises(AnswerIsHtml):
            await preflight(pool, SEVEN)


async def test_nobody_listens() -> None:
    async with pool_of("http://127.0.0.1:9/key-abcdef") as pool:
        with pytest.raises(EndpointUnreachable) as caught:
            await preflight(pool, SEVEN)
        assert "abcdef" not in str(caught.value)


async def test_several_that_fail_are_all_named() -> None:
    async with pool_of("http://127.0.0.1:9/a", "http://127.0.0.1:19/b") as pool:
        with pytest.raises(EndpointsUnusable, match=r"127\.0\.0\.1:9#.*127\.0\.0\.1:19#"):
            await preflight(pool, SEVEN)


async def test_start_beyond_the_head() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        with pytest.raises(
            StartBeyondHead, match="--from 31 is beyond the head, which is block 29"
        ):
            await preflight(pool, SEVEN, from_block=31)


@pytest.mark.parametrize("method", ["eth_getBlockReceipts", "eth_getBlockByNumber"])
async def test_pruned_history_is_found_at_the_start(method: str) -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        own = node.block if method == "eth_getBlockByNumber" else node.block_receipts
        node.overrides[method] = lambda block_id, *rest: (
            None if block_id == "0x3" else own(block_id, *rest)
        )
        with pytest.raises(HistoryPruned, match="history of block 3"):
            await preflight(pool, SEVEN, from_block=3)
        assert (await preflight(pool, SEVEN, from_block=4)).head.number == 29


async def test_an_empty_list_of_receipts_is_a_false_answer_and_not_pruned_history() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        node.overrides["eth_getBlockReceipts"] = lambda _: []
        with pytest.raises(ProvidersExhausted, match=r"receipts of block 5, which has 2 trans"):
            await preflight(pool, SEVEN, from_block=5)


@pytest.mark.parametrize("field", ["logsBloom", "receiptsRoot"])
async def test_a_first_block_without_a_bloom_is_no_pruned_history(field: str) -> None:
    """The block has no transactions, so its receipts are an empty list."""
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        node.overrides["eth_getBlockByNumber"] = lambda block_id, whole: {
            **(node.block(block_id, whole) or {}),
            field: None,
        }
        assert (await preflight(pool, SEVEN, from_block=3)).head.number == 29


async def test_a_first_block_that_cannot_be_read_is_named() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        node.overrides["eth_getBlockByNumber"] = lambda block_id, whole: {
            **(node.block(block_id, whole) or {}),
            "transactions": "none",
        }
        with pytest.raises(ProvidersExhausted, match=r"block 3: .*transactions"):
            await preflight(pool, SEVEN, from_block=3)


@pytest.mark.parametrize(("hours", "direction"), [(1, "ahead of"), (-1, "behind")])
async def test_a_clock_off_by_an_hour_is_a_warning(hours: int, direction: str) -> None:
    now_s = GENESIS_TIME + 29 + 3600 * hours
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url, now_s=now_s) as pool:
        (warning,) = (await preflight(pool, SEVEN)).warnings
        assert isinstance(warning, ClockSkewed)
        assert warning.data["direction"] == direction


async def test_a_head_that_is_years_old_is_said_to_be_old() -> None:
    now_s = GENESIS_TIME + 29 + 3 * 365 * 86_400
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url, now_s=now_s) as pool:
        (warning,) = (await preflight(pool, SEVEN)).warnings
        assert isinstance(warning, HeadOld)
        assert "head, block 29, is 1095 day(s) old: it is of 2023-11-14" in warning.what_text


async def test_an_endpoint_that_is_down_is_a_warning_and_stays() -> None:
    async with (
        FakeNode(fake_chain(30)) as node,
        pool_of("http://127.0.0.1:9/x", node.url) as pool,
    ):
        facts = await preflight(pool, SEVEN)
        assert not facts.excluded
        assert [warning.code for warning in facts.warnings] == [EndpointUnreachable.code]
        assert len(pool.usable()) == 2


async def test_an_endpoint_that_answered_before_is_given_time() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        await preflight(pool, SEVEN, from_block=1)
        refusals = 4

        def refuse(_: object) -> web.Response | None:
            nonlocal refusals
            refusals -= 1
            return web.Response(status=503) if refusals > 0 else None

        node.intercept = refuse
        assert (await preflight(pool, SEVEN)).head.number == 29
        assert refusals <= 0


async def test_an_endpoint_left_out_is_not_asked_again() -> None:
    chain = fake_chain(9)
    async with (
        FakeNode(chain, chain_id=5) as wrong,
        FakeNode(chain) as right,
        pool_of(wrong.url, right.url) as pool,
    ):
        await preflight(pool, SEVEN)
        asked = wrong.requests
        assert not (await preflight(pool, SEVEN)).excluded
        assert wrong.requests == asked


async def test_without_receipts_the_lower_level_is_announced() -> None:
    async with FakeNode(fake_chain(30)) as node, pool_of(node.url) as pool:
        node.missing = {"eth_getBlockReceipts", "eth_getTransactionReceipt"}
        node.overrides["eth_getLogs"] = lambda query: [{"blockHash": query["blockHash"]}]
        facts = await preflight(pool, SEVEN, from_block=2)
        assert facts.receipts_by is ReceiptsBy.logs
        assert [warning.code for warning in facts.warnings] == [MethodMissing.code]
