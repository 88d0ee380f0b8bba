"""kill -9 at random moments of a backfill and a head with reorgs; the re-run stores the truth.

Every insert of ours goes without ClickHouse's deduplication (`deduplicate_insert = disable`), so
nothing here can rest on it; one test also stops merges. HEADRACE_SEED repeats a run's dice: the
moments of the kills, and what the chain does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest

from infra.clickhouse.server import RunningServer, find_running
from infra.devchain import Chain
from infra.exit_codes import ExitCode
from sinks.connection import Connection
from tests.e2e.mining import Miner, check_reorgs, fresh_dice, mined
from tests.e2e.running import Headrace, numbers, shown, tables, until
from tests.patience import PATIENCE_SECONDS
from tests.stored_truth import assert_stored

KILLS = 10


@pytest.fixture
def dice() -> Random:
    """Dice whose seed is shown with a failure."""
    return fresh_dice()


def check(headrace: Headrace, chain: Chain) -> None:
    """Every table holds the truth, and every reorg that was seen is told."""
    with headrace.stored() as connection:
        head = numbers(connection, "SELECT max(block_number) FROM blocks")[0]
        assert head == chain.head.header.number
        assert_stored(connection, tables(), chain.blocks())
        check_reorgs(connection, chain)


def interrupted_at_head(headrace: Headrace, process: subprocess.Popen[bytes], miner: Miner) -> int:
    """The exit code of a run that showed the last block mined, and was then told to end."""
    miner.stop()
    head = miner.chain.head.header.number
    until(lambda: shown(headrace) >= head or process.poll() is not None, headrace.said())
    process.send_signal(signal.SIGINT)
    return process.wait(PATIENCE_SECONDS)


def test_killed_at_ten_moments(tmp_path: Path, dice: Random) -> None:
    with mined(dice) as (serving, miner):
        headrace = Headrace(tmp_path, serving.http_urls)
        for _ in range(KILLS):
            process = headrace.start("--from", "0")
            time.sleep(dice.uniform(1.0, 4.0))
            assert process.poll() is None, headrace.said()
            headrace.end(process)
        miner.stop()
        headrace.run("--from", "0", "--to", str(miner.chain.head.header.number))
        check(headrace, miner.chain)


def test_clickhouse_killed_comes_back(tmp_path: Path, dice: Random) -> None:
    with mined(dice) as (serving, miner):
        headrace = Headrace(tmp_path, serving.http_urls)
        process = headrace.start("--from", "0")
        try:
            for _ in range(3):
                until(lambda: shown(headrace) >= 0, "ClickHouse is not up")
                time.sleep(dice.uniform(0.5, 4.0))
                for pid in headrace.clickhouse_pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)
            code = interrupted_at_head(headrace, process, miner)
        finally:
            headrace.end(process)
        assert code == ExitCode.interrupted, headrace.said()
        assert "Traceback" not in headrace.log.read_text()
        check(headrace, miner.chain)


def test_killed_with_merges_stopped(tmp_path: Path, dice: Random) -> None:
    with mined(dice) as (serving, miner):
        headrace = Headrace(tmp_path, serving.http_urls)
        process = headrace.start("--from", "0")
        try:
            for kill in (True, False):
                found: list[RunningServer] = []
                until(partial(_running, headrace, found), "ClickHouse is not up")
                with Connection(found[0].endpoint()) as connection:
                    connection.execute("SYSTEM STOP MERGES")
                time.sleep(dice.uniform(3.0, 6.0))
                if kill:
                    headrace.end(process)
                    process = headrace.start("--from", "0")
            code = interrupted_at_head(headrace, process, miner)
        finally:
            headrace.end(process)
        assert code == ExitCode.interrupted, headrace.said()
        check(headrace, miner.chain)


def _running(headrace: Headrace, found: list[RunningServer]) -> bool:
    """Whether a run's server answers; it is added to those found."""
    server = find_running(headrace.data)
    found += [server] if server is not None else []
    return bool(found)
