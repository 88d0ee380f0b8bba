"""`headrace replay` on a data directory: nothing changes, or what was wrong is mended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.clickhouse.server import find_running
from infra.devchain import Serving, serve_in_thread
from infra.exit_codes import ExitCode
from schemas.errors import HeadraceError
from sinks.canon_row import CanonRow
from sinks.canon_table import read_canon
from sinks.connection import Connection
from tests.e2e.running import (
    CHAIN,
    PATIENCE_SECONDS,
    ROOT,
    Headrace,
    small_chain,
    tables,
    until,
)
from tests.stored_truth import assert_stored

HARM = (
    "logs_sealed DELETE WHERE block_number IN (3, 4)",
    "erc20_transfers_sealed UPDATE value = value + 1 WHERE block_number BETWEEN 20 AND 39",
    "blocks_open UPDATE gas_used = gas_used + 1 WHERE block_number = 81",
    "token_flows_open DELETE WHERE block_number BETWEEN 82 AND 84",
)


def replay(headrace: Headrace, first: int, last: int) -> dict[str, Any]:
    """What the command says it did."""
    words = ["--config", str(headrace.config), "--data", str(headrace.data), "--json"]
    words += ["--rpc", headrace.urls[0], "--from", str(first), "--to", str(last)]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "replay", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def canon_of(headrace: Headrace) -> CanonRow:
    with headrace.stored() as connection:
        row = read_canon(connection, CHAIN)
    assert row is not None
    return row


def sealed(headrace: Headrace) -> tuple[int, ...]:
    """The sealed partitions of a run that is going on."""
    running = find_running(headrace.data)
    if running is None:
        return ()
    try:
        with Connection(running.endpoint(database=CHAIN)) as connection:
            row = read_canon(connection, CHAIN)
    except HeadraceError:
        return ()
    return row.sealed if row is not None else ()


def assert_true(headrace: Headrace, serving: Serving) -> None:
    with headrace.stored() as connection:
        row = read_canon(connection, CHAIN)
        assert row is not None
        assert serving.chain is not None
        assert_stored(connection, tables(), serving.chain.blocks()[: row.head.number + 1])


def test_a_replay_changes_nothing_or_mends(tmp_path: Path) -> None:
    chain = small_chain(seed=19)
    chain.mine(97)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        process = headrace.start("--from", "0")
        until(lambda: sealed(headrace) == (0, 1, 2, 3), "nothing was sealed")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted
        before = canon_of(headrace)
        done = replay(headrace, 0, 96)
        assert (done["from_block"], done["to_block"], done["mended"]) == (0, 84, [])
        assert canon_of(headrace) == before
        with headrace.stored() as connection:
            for harm in HARM:
                connection.execute(f"ALTER TABLE {harm} SETTINGS mutations_sync = 2")
        done = replay(headrace, 0, 84)
        named = {name for one in done["mended"] for name in one["tables"]}
        assert named == {"logs", "erc20_transfers", "blocks", "token_flows"}
        assert_true(headrace, serving)
        assert canon_of(headrace).generation == before.generation + 1
        headrace.run("--from", "0", "--to", "97")
        assert_true(headrace, serving)
        headrace.audit()
        assert replay(headrace, 0, 84)["mended"] == []
