"""A cluster broken in every way while blocks come in and reorgs happen; every table is the truth.

`HEADRACE_CHAOS_RUNS` repeats the kinds in turn (one round by default); HEADRACE_SEED repeats the
dice of a run. One broker serves all of them, each under a prefix of its own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.kafka.broker import LocalBroker
from tests.cluster.chaos import CHAOS
from tests.cluster.cluster_rig import Cluster, cluster
from tests.e2e.mining import check_reorgs, fresh_dice, mined
from tests.e2e.running import tables
from tests.kafka_rig import require_kafka
from tests.stored_truth import assert_stored

RUNS = int(os.environ.get("HEADRACE_CHAOS_RUNS") or len(CHAOS))
KINDS = [(number, list(CHAOS)[number % len(CHAOS)]) for number in range(RUNS)]
WARM_SHARE = 0.7
"""Of the runs that are broken only once something is visible; the others while roles start."""
MIXED_GENERATIONS = ("two publishers", "kill pairs")
"""Kinds after which rows of a publisher that lost its claim stand between those that count."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker that may be stopped, for this module alone."""
    require_kafka()
    with LocalBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.mark.timeout(1200, func_only=True)
@pytest.mark.parametrize(("number", "kind"), KINDS, ids=[f"{n}-{kind}" for n, kind in KINDS])
def test_chaos_ends_in_the_truth(
    tmp_path: Path, broker: LocalBroker, number: int, kind: str
) -> None:
    dice = fresh_dice()
    prefix = f"chaos{number}.{secrets.token_hex(3)}."
    with (
        mined(dice) as (serving, miner),
        cluster(tmp_path, broker.bootstrap, prefix, serving.http_urls) as running,
    ):
        running.start_all()
        if dice.random() < WARM_SHARE:
            running.wait_for(0)
        CHAOS[kind](running, broker, dice)
        miner.stop()
        running.wait_for(miner.chain.head.header.number)
        _check(running, miner.chain.blocks(), kind)
        with running.connect() as connection:
            if kind not in MIXED_GENERATIONS:
                check_reorgs(connection, miner.chain)


def _check(running: Cluster, blocks: tuple[object, ...], kind: str) -> None:
    with running.connect() as connection:
        try:
            assert_stored(connection, tables(), blocks)  # type: ignore[arg-type]
        except AssertionError as error:
            raise AssertionError(f"{kind}: {error}\n{running.said()}") from error
