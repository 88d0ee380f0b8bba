"""A synthetic chain with true roots in, its every block and log out, whatever the nodes do."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from infra.devchain.chain import Chain
from infra.devchain.faults import Fault
from infra.devchain.rpc import Limits
from ingest.backfill import receipts_source
from ingest.endpoint import ReceiptsBy
from ingest.publish import Built, segment_envelopes
from schemas.codec import decode_block_segment, decode_log_segment
from schemas.errors import HeadraceError
from schemas.errors_ingest import ProvidersExhausted
from schemas.tables import Verification
from tests.ingest.devchain_node import (
    FAST,
    collect,
    fetcher_of,
    logs_of,
    pool_of,
    segments,
    served,
    small_chain,
)

BLOCKS = 60
METHODS = frozenset({"eth_getBlockByNumber", "eth_getBlockReceipts"})


def assert_is(chain: Chain, built: list[Built]) -> None:
    """Every block and log of the first blocks, once, in order."""
    blocks = chain.blocks()[:BLOCKS]
    assert built[0].blocks is not None
    hashes, logs, transactions = [], [], 0
    for part in built:
        assert part.blocks is not None
        hashes += [row.tobytes() for row in np.asarray(part.blocks.blocks.columns["block_hash"])]
        transactions += part.blocks.transactions.rows
        columns = part.logs.logs.columns
        places = zip(
            np.asarray(columns["block_number"]).tolist(),
            np.asarray(columns["log_index"]).tolist(),
            np.asarray(columns["address"]),
            strict=True,
        )
        logs += [(number, index, address.tobytes()) for number, index, address in places]
    assert hashes == [block.hash for block in blocks]
    assert transactions == sum(len(block.transactions) for block in blocks)
    truth = [(n, i, log.address) for n, i, log in logs_of(chain) if n < BLOCKS]
    assert logs == truth


async def test_every_block_and_log_and_the_verdict() -> None:
    chain = small_chain(BLOCKS + 5)
    async with served(chain) as server, pool_of(server) as pool:
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert {part.logs.level for part in built} == {Verification.full}
        blocks, logs = segment_envelopes(built[3], 5)
        assert decode_block_segment(blocks.value).name.from_block == 15
        assert decode_log_segment(logs.value).name.last_hash == chain.blocks()[19].hash
        assert blocks.key == logs.key


@pytest.mark.parametrize(
    "lie",
    [
        "omit_logs",
        "alter_logs",
        "duplicate_logs",
        "alter_header",
        "alter_hash",
        "alter_transaction",
        "alter_receipt",
        "other_receipts",
    ],
)
async def test_a_liar_is_found_out_and_left(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.proven.RACES_MAX", 1)
    chain = small_chain(BLOCKS + 5)
    async with served(chain, 2) as server, pool_of(server) as pool:
        board = server.endpoints[0].faults
        number = board.add(Fault(lie, methods=METHODS))
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert board.struck(number)
        health = pool.snapshot()
        assert health[1].quarantined is None
        assert health[0].quarantined is not None
        assert health[0].quarantined.code.startswith("HR-22")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("http_status", status=429, probability=0.3, retry_after_seconds=0),
        Fault("http_status", status=503, probability=0.3),
        Fault("disconnect", probability=0.3),
        Fault("truncated", probability=0.3),
        Fault("html", probability=0.3),
        Fault("empty_body", probability=0.3),
        Fault("giant", probability=0.2, size_bytes=30_000_000),
        Fault("null_block", probability=0.02),
        Fault("null_receipts", probability=0.02),
        Fault("rpc_error", probability=0.02),
        Fault("hang", count=2),
        Fault("delay", probability=0.2, delay_seconds=0.05),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_faulty_network_loses_nothing(fault: Fault) -> None:
    chain = small_chain(BLOCKS + 5)
    hasty = replace(FAST, request_timeout_seconds=0.5, hedge_after_seconds=0.25)
    limits = hasty if fault.kind == "hang" else FAST
    async with served(chain, 2) as server, pool_of(server, limits) as pool:
        for endpoint in server.endpoints:
            endpoint.faults.add(fault)
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert all(health.quarantined is None for health in pool.snapshot())


async def test_without_block_receipts_single_ones_prove_as_much() -> None:
    chain = small_chain(BLOCKS + 5)
    async with served(chain) as server, pool_of(server) as pool:
        missing = Fault("rpc_error", methods=frozenset({"eth_getBlockReceipts"}), code=-32601)
        server.endpoints[0].faults.add(missing)
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert pool.endpoints[0].can.receipts_by is ReceiptsBy.transaction
        assert {part.logs.level for part in built} == {Verification.full}


async def test_without_any_receipts_logs_are_fetched_and_the_level_drops() -> None:
    chain = small_chain(BLOCKS + 5)
    async with served(chain) as server, pool_of(server) as pool:
        for method in ("eth_getBlockReceipts", "eth_getTransactionReceipt"):
            missing = Fault("rpc_error", methods=frozenset({method}), code=-32601)
            server.endpoints[0].faults.add(missing)
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert pool.endpoints[0].can.receipts_by is ReceiptsBy.logs
        assert {part.logs.level for part in built} == {Verification.header}
        assert all(part.logs.unproven for part in built)


async def test_small_batches_are_enough() -> None:
    chain = small_chain(BLOCKS + 5)
    async with served(chain, limits=Limits(batch_calls_max=4)) as server, pool_of(server) as pool:
        built = await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert_is(chain, built)
        assert pool.endpoints[0].can.batch_calls_max <= 4


async def test_an_endpoint_without_history_ends_in_a_coded_error() -> None:
    chain = small_chain(BLOCKS + 5)
    async with served(chain) as server, pool_of(server) as pool:
        server.endpoints[0].faults.add(Fault("pruned"))
        with pytest.raises(HeadraceError) as caught:
            await collect(pool, receipts_source(fetcher_of(pool)), segments(BLOCKS))
        assert caught.value.code in ("HR-2022", ProvidersExhausted.code)


async def test_proofs_can_be_computed_in_another_process() -> None:
    """What crosses the border survives it: payloads, the build, its segments and its errors."""
    chain = small_chain(BLOCKS + 5)
    spawn = multiprocessing.get_context("spawn")
    async with served(chain, 2) as server, pool_of(server) as pool:
        server.endpoints[0].faults.add(Fault("alter_receipt", count=1))
        with ProcessPoolExecutor(1, mp_context=spawn) as executor:
            fetcher = fetcher_of(pool, executor=executor)
            built = await collect(pool, receipts_source(fetcher), segments(BLOCKS))
        assert_is(chain, built)
        lied = [h.quarantined.code for h in pool.snapshot() if h.quarantined]
        assert all(code.startswith("HR-22") for code in lied)
