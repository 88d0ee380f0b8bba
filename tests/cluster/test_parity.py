"""One chain with reorgs, indexed embedded and through the cluster: the same rows in every table."""

from __future__ import annotations

import secrets
from pathlib import Path
from random import Random

import pytest

from infra.devchain import Chain, serve_in_thread
from tests.cluster.cluster_rig import cluster
from tests.cluster.hashes import hashes
from tests.e2e.mining import fresh_dice
from tests.e2e.running import Headrace, shown, small_chain, tables, until
from tests.stored_truth import assert_stored

VERIFY = "verify = 'full'"
"""Else a row says by which lane its block came: history is proven to `receipts` by default."""


def reorganise(chain: Chain, dice: Random) -> None:
    """Some blocks and reorgs at the head, none below what is final."""
    for _ in range(6):
        chain.mine(dice.randint(1, 4))
        chain.reorg(dice.randint(1, 6))


@pytest.mark.timeout(1200, func_only=True)
def test_cluster_and_embedded_store_the_same_rows(tmp_path: Path, kafka_bootstrap: str) -> None:
    dice = fresh_dice()
    chain = small_chain(seed=dice.randrange(1 << 20))
    chain.mine(60)
    (tmp_path / "embedded").mkdir()
    (tmp_path / "cluster").mkdir()
    prefix = f"parity.{secrets.token_hex(3)}."
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path / "embedded", serving.http_urls, VERIFY)
        process = headrace.start("--from", "0")
        with cluster(
            tmp_path / "cluster", kafka_bootstrap, prefix, serving.http_urls, settings=VERIFY
        ) as running:
            running.start_all()
            until(lambda: shown(headrace) >= 30, "the embedded run shows nothing")
            running.wait_for(30)
            reorganise(chain, dice)
            head = chain.head.header.number
            running.wait_for(head)
            until(lambda: shown(headrace) >= head, headrace.said())
            with running.connect() as connection:
                assert_stored(connection, tables(), chain.blocks())
                clustered = hashes(connection)
        headrace.end(process)
    with headrace.stored() as connection:
        embedded = hashes(connection)
    assert clustered == embedded
    assert clustered["logs"][0] > 0
    assert clustered["erc20_transfers"][0] > 0
