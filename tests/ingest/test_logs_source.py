"""A filter in, headers and matching logs out: splitting, proofs, and what cannot be proven."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.devchain.chain import Chain
from infra.devchain.faults import Fault
from infra.devchain.rpc import Limits
from ingest.backfill import receipts_source
from ingest.keccak import keccak
from ingest.limits import IngestLimits
from ingest.logs_source import RANGE_STREAK, LogsSource, ProveLogs
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool, Terms
from ingest.publish import Built
from ingest.verify_logs import LogFilter
from schemas.errors import HeadraceError
from schemas.errors_ingest import LogsUnservable, ProvidersExhausted
from schemas.errors_verify import LogsMissing
from schemas.tables import Verification
from tests.ingest.devchain_node import (
    CHAIN_ID,
    FAST,
    LOCAL,
    collect,
    logs_of,
    pool_of,
    segments,
    served,
    small_chain,
)
from tests.ingest.fake_node import FakeNode, fake_chain
from tests.ingest.fake_node import Fault as RpcError

TRANSFER = keccak(b"Transfer(address,address,uint256)")
TRANSFERS = LogFilter(topics=(frozenset({TRANSFER}),))
EVERYTHING = LogFilter()


def fetcher(pool: ProviderPool, wanted: LogFilter) -> ProvenFetcher:
    build = ProveLogs(CHAIN_ID, Verification.receipts, wanted, LOCAL)
    return ProvenFetcher(pool, build, fetch_payloads=LogsSource(wanted))


def found(built: list[Built]) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for part in built:
        columns = part.logs.logs.columns
        numbers, indexes = (
            np.asarray(columns[name]).tolist() for name in ("block_number", "log_index")
        )
        places += zip(numbers, indexes, strict=True)
    return places


def truth(chain: Chain, matches: Callable[[Any], bool], blocks: int) -> list[tuple[int, int]]:
    return [(n, i) for n, i, log in logs_of(chain) if n < blocks and matches(log)]


def is_transfer(log: Any) -> bool:
    return bool(log.topics) and log.topics[0] == TRANSFER


async def test_only_matching_logs_come_and_all_of_them() -> None:
    chain = small_chain(65)
    async with served(chain) as server, pool_of(server) as pool:
        fetch = receipts_source(fetcher(pool, TRANSFERS))
        built = await collect(pool, fetch, segments(60))
        assert found(built) == truth(chain, is_transfer, 60)
        assert found(built)
        for part in built:
            assert part.logs.level is Verification.header
            assert any("absence" in words for words in part.logs.unproven) or any(
                "no log of the filter" in words for words in part.logs.proven
            )
            assert part.blocks is not None
            assert part.blocks.blocks.rows == 5


async def test_one_contract_by_address() -> None:
    chain = small_chain(65)
    busiest = Counter(log.address for _, _, log in logs_of(chain)).most_common(1)[0][0]
    wanted = LogFilter(addresses=frozenset({busiest}))
    async with served(chain) as server, pool_of(server) as pool:
        built = await collect(pool, receipts_source(fetcher(pool, wanted)), segments(60))
        assert found(built) == truth(chain, lambda log: log.address == busiest, 60)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(logs_range_blocks_max=2),
        Limits(logs_range_blocks_max=1),
        Limits(logs_results_max=30),
        Limits(batch_calls_max=3),
    ],
    ids=str,
)
async def test_refused_ranges_are_split_and_nothing_is_lost(limits: Limits) -> None:
    chain = small_chain(65)
    async with served(chain, limits=limits) as server, pool_of(server) as pool:
        built = await collect(pool, receipts_source(fetcher(pool, EVERYTHING)), segments(60))
        assert found(built) == truth(chain, lambda _: True, 60)


async def test_a_filter_that_is_ignored_is_found_out() -> None:
    chain = small_chain(25)
    async with served(chain) as server, pool_of(server) as pool:
        source = LogsSource(EVERYTHING)
        build = ProveLogs(CHAIN_ID, Verification.receipts, TRANSFERS, LOCAL)
        ignoring = ProvenFetcher(pool, build, fetch_payloads=source)
        with pytest.raises(HeadraceError) as caught:
            await collect(pool, receipts_source(ignoring), segments(20))
        assert caught.value.code == "HR-2240"


async def test_altered_logs_are_found_out_and_the_liar_is_left() -> None:
    chain = small_chain(65)
    async with served(chain, 2) as server, pool_of(server) as pool:
        server.endpoints[0].faults.add(Fault("duplicate_logs", methods=frozenset({"eth_getLogs"})))
        built = await collect(pool, receipts_source(fetcher(pool, EVERYTHING)), segments(60))
        assert found(built) == truth(chain, lambda _: True, 60)
        assert pool.snapshot()[1].quarantined is None


@pytest.mark.parametrize("endpoints", [1, 2])
async def test_answers_cut_in_silence_lose_nothing(endpoints: int) -> None:
    chain = small_chain(65)
    densest = max(Counter(number for number, _, _ in logs_of(chain)).values())
    cut = Fault("cut_logs", methods=frozenset({"eth_getLogs"}), logs_max=densest)
    async with served(chain, endpoints) as server, pool_of(server) as pool:
        server.endpoints[0].faults.add(cut)
        built = await collect(pool, receipts_source(fetcher(pool, EVERYTHING)), segments(60, 20))
        assert found(built) == truth(chain, lambda _: True, 60)
        narrowed = pool.endpoints[0].can.logs_range_ceiling
        assert narrowed is not None
        assert narrowed < 20
        assert [health.quarantined for health in pool.snapshot()] == [None] * endpoints


async def test_one_block_whose_logs_are_cut_is_refused() -> None:
    chain = small_chain(25)
    async with served(chain) as server, pool_of(server) as pool:
        cut = Fault("cut_logs", methods=frozenset({"eth_getLogs"}), logs_max=1)
        server.endpoints[0].faults.add(cut)
        with pytest.raises(LogsMissing, match="logsBloom names more than the 1 logs"):
            await collect(pool, receipts_source(fetcher(pool, EVERYTHING)), segments(20))


async def test_with_a_filter_what_may_be_missing_is_said() -> None:
    chain = small_chain(65)
    async with served(chain) as server, pool_of(server) as pool:
        cut = Fault("cut_logs", methods=frozenset({"eth_getLogs"}), logs_max=3)
        server.endpoints[0].faults.add(cut)
        built = await collect(pool, receipts_source(fetcher(pool, TRANSFERS)), segments(60))
        assert len(found(built)) < len(truth(chain, is_transfer, 60))
        assert all(
            any("absence of further logs in " in word for word in part.logs.unproven)
            for part in built
            if found([part])
        )


async def test_a_head_block_is_fetched_by_hash() -> None:
    chain = small_chain(12)
    async with served(chain) as server, pool_of(server) as pool:
        block = chain.blocks()[-1]
        fetched = await fetcher(pool, TRANSFERS).fetch([block.hash], "head")
        number = block.header.number
        assert found([fetched.built]) == [
            place for place in truth(chain, is_transfer, number + 1) if place[0] == number
        ]
        each = await fetcher(pool, TRANSFERS).fetch_each([(b.hash, 5) for b in chain.blocks()[3:6]])
        assert [e.built.from_block for e in each if not isinstance(e, HeadraceError)] == [3, 4, 5]


async def test_filters_have_their_own_content_versions() -> None:
    versions = {
        ProveLogs(CHAIN_ID, Verification.header, wanted, LOCAL).content_version()
        for wanted in (EVERYTHING, TRANSFERS, LogFilter(addresses=frozenset({b"\1" * 20})))
    }
    assert len(versions) == 3


# --- splitting alone, on a node whose every refusal is scripted -----------------------------------


async def ask(node: FakeNode, blocks: range, limits: IngestLimits = FAST) -> list[dict[str, Any]]:
    async with ProviderPool([node.url], limits) as pool:
        source = LogsSource(TRANSFERS)
        terms = Terms("logs")
        payloads = (await pool.run(lambda e: source(e, blocks), terms)).value
        return [log for payload in payloads for log in json.loads(bytes(payload.receipts))]


def node_of(blocks: int, refuse: Callable[[int], RpcError | None]) -> tuple[FakeNode, list[int]]:
    node = FakeNode(fake_chain(blocks))
    widths: list[int] = []

    def logs(query: dict[str, Any]) -> list[dict[str, Any]]:
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        assert query["topics"] == [["0x" + TRANSFER.hex()]]
        widths.append(last - first + 1)
        fault = refuse(last - first + 1)
        if fault is not None:
            raise fault
        return [{"n": number} for number in range(first, last + 1)]

    node.overrides["eth_getLogs"] = logs
    return node, widths


@pytest.mark.parametrize("allowed", [1, 3, 7, 40, 1000])
async def test_halving_is_the_last_word(allowed: int) -> None:
    node, widths = node_of(100, lambda width: RpcError(-32000, "no") if width > allowed else None)
    async with node:
        assert [log["n"] for log in await ask(node, range(100))] == list(range(100))
        assert max(widths) <= 100
        assert sum(width > allowed for width in widths) <= 7


async def test_the_width_that_an_endpoint_names_is_taken_at_once() -> None:
    node, widths = node_of(
        100,
        lambda width: (
            RpcError(-32614, "eth_getLogs is limited to a 30 range") if width > 30 else None
        ),
    )
    async with node:
        assert len(await ask(node, range(100))) == 100
        assert widths == [100, 30, 30, 30, 10]


async def test_a_single_block_that_is_refused_ends_in_a_coded_error() -> None:
    node, widths = node_of(8, lambda _: RpcError(-32005, "query returned more than 10000 results"))
    async with node:
        with pytest.raises(ProvidersExhausted) as caught:
            await ask(node, range(8), replace(FAST, retry_attempts_max=2))
        assert isinstance(caught.value.data["last"], LogsUnservable)
        assert 1 in widths


async def test_null_logs_are_not_taken_for_none() -> None:
    node = FakeNode(fake_chain(8))
    node.overrides["eth_getLogs"] = lambda query: None
    async with node:
        with pytest.raises(ProvidersExhausted, match="HR-2021"):
            await ask(node, range(8), replace(FAST, retry_attempts_max=2))


async def test_logs_beyond_the_head_are_not_taken_for_none() -> None:
    node = FakeNode(fake_chain(8))
    node.overrides["eth_getLogs"] = lambda query: []
    async with node:
        with pytest.raises(ProvidersExhausted, match="HR-2020"):
            await ask(node, range(5, 12), replace(FAST, retry_attempts_max=2))


async def test_a_learnt_width_grows_again() -> None:
    narrow = True
    node, widths = node_of(
        64,
        lambda width: RpcError(-32000, "block range too large") if narrow and width > 4 else None,
    )
    async with node, ProviderPool([node.url], FAST) as pool:
        source = LogsSource(TRANSFERS)
        endpoint = pool.endpoints[0]
        await source(endpoint, range(16))
        assert endpoint.can.logs_range_blocks_max == 4
        narrow = False
        for _ in range(RANGE_STREAK):
            await source(endpoint, range(4))
        assert endpoint.can.logs_range_blocks_max == 8
        await source(endpoint, range(32))
        assert widths[-4:] == [8, 8, 8, 8]
