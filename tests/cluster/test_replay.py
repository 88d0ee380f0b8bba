"""`headrace replay` in a cluster: nothing changes, or what was wrong is mended while it runs."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from infra.devchain import Chain, serve_in_thread
from sinks.canon_table import read_canon
from tests.cluster.cluster_rig import Cluster, cluster
from tests.e2e.running import CHAIN, small_chain, tables, until
from tests.stored_truth import assert_stored

LAST_FINAL = 39


def replay(running: Cluster) -> dict[str, Any]:
    """What the command says it did."""
    said = running.command("replay", "--from", "0", "--to", str(LAST_FINAL), "--json")
    (line,) = [line for line in said.splitlines() if line.startswith('{"from_block"')]
    found: dict[str, Any] = json.loads(line)
    return found


def assert_true(running: Cluster, chain: Chain) -> None:
    with running.connect() as connection:
        assert_stored(connection, tables(), chain.blocks())


@pytest.mark.timeout(1200, func_only=True)
def test_a_replay_of_a_running_cluster(tmp_path: Path, kafka_bootstrap: str) -> None:
    chain = small_chain(seed=23)
    chain.mine(60)
    prefix = f"replay.{secrets.token_hex(3)}."
    with (
        serve_in_thread(chain) as serving,
        cluster(tmp_path, kafka_bootstrap, prefix, serving.http_urls) as running,
    ):
        running.start_all()
        running.wait_for(chain.head.header.number)

        def sealed() -> bool:
            with running.connect() as connection:
                row = read_canon(connection, CHAIN)
            return row is not None and row.sealed == (0, 1)

        until(sealed, "nothing was sealed")
        assert replay(running)["mended"] == []
        assert_true(running, chain)
        with running.connect() as connection:
            for harm in (
                "logs_sealed DELETE WHERE block_number IN (3, 4)",
                "erc20_transfers_sealed UPDATE value = value + 1 WHERE block_number = 25",
            ):
                connection.execute(f"ALTER TABLE {harm} SETTINGS mutations_sync = 2")
        done = replay(running)
        assert {name for one in done["mended"] for name in one["tables"]} == {
            "logs",
            "erc20_transfers",
        }
        running.command("audit", "--to", str(LAST_FINAL))
        status = json.loads(running.command("status", "--json").splitlines()[-1])
        assert (status["chain"], status["data_dir"], status["running"]) == (CHAIN, None, None)
        assert status["canon"]["head"] == chain.head.header.number
        chain.mine(3)
        running.wait_for(chain.head.header.number)
        assert_true(running, chain)
        until(sealed, "what was opened was not sealed again")
        assert_true(running, chain)
