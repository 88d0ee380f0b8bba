"""A seed in, a served synthetic chain with true roots and everything ingest needs of it out."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from infra.devchain.chain import Chain, Spec
from infra.devchain.model import Log
from infra.devchain.planning import Budget
from infra.devchain.rpc import Limits
from infra.devchain.server import DevchainServer
from ingest.backfill import Backfill, FetchSegment, SegmentRange
from ingest.limits import IngestLimits
from ingest.prove import prover
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool
from ingest.publish import Built
from schemas.chains import load_chains
from schemas.tables import Verification
from tests.ingest.patient import PATIENT

LOCAL = replace(load_chains()["local"], block_time_seconds=0.02).resized(5, 100)
CHAIN_ID = Spec().chain_id
FAST = replace(
    PATIENT,
    backoff_seconds_min=0.001,
    backoff_seconds_max=0.02,
    retry_attempts_max=20,
    response_bytes_max=8 * 1024 * 1024,
    head_poll_seconds_min=0.01,
    head_poll_seconds_max=0.01,
    finality_poll_seconds_min=0.01,
    head_watchdog_seconds=0.05,
    websocket_retry_seconds=0.05,
)


def small_chain(blocks: int, seed: int = 7, finality_depth: int = 10) -> Chain:
    """A chain of small blocks."""
    spec = Spec(seed=seed, budget=Budget(4, 12), finality_depth=finality_depth, safe_depth=4)
    chain = Chain(spec)
    chain.mine(blocks)
    return chain


@contextlib.asynccontextmanager
async def served(
    chain: Chain, endpoints: int = 1, limits: Limits | None = None
) -> AsyncIterator[DevchainServer]:
    """The chain on loopback ports."""
    server = DevchainServer(chain, endpoints, limits=limits)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def pool_of(server: DevchainServer, limits: IngestLimits = FAST) -> ProviderPool:
    """A pool over all endpoints of a server."""
    return ProviderPool(server.http_urls, limits, rng=random.Random(11))


def fetcher_of(
    pool: ProviderPool, level: Verification = Verification.full, **extra: Any
) -> ProvenFetcher:
    """A fetcher that proves at a level."""
    return ProvenFetcher(pool, prover(LOCAL, CHAIN_ID, level), **extra)


def segments(blocks: int, size: int = LOCAL.segment_blocks) -> list[SegmentRange]:
    """The grid's segments of the first `blocks` blocks."""
    return [SegmentRange(at, at + size - 1) for at in range(0, blocks, size)]


async def collect(
    pool: ProviderPool, fetch: FetchSegment, missing: Sequence[SegmentRange]
) -> list[Built]:
    """What a backfill yields."""
    return [built async for built in Backfill(pool, fetch).run(missing)]


def logs_of(chain: Chain) -> Iterator[tuple[int, int, Log]]:
    """Block number, log index and log of every canonical log."""
    for block in chain.blocks():
        index = 0
        for transaction in block.transactions:
            for log in transaction.logs:
                yield block.header.number, index, log
                index += 1
