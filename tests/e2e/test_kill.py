"""kill -9 at random moments of a backfill and a head with reorgs; the re-run stores the truth.

Every insert of ours goes without ClickHouse's deduplication (`deduplicate_insert = disable`), so
nothing here can rest on it; one test also stops merges. HEADRACE_SEED repeats a run's dice: the
moments of the kills, and what the chain does.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from infra.clickhouse.server import find_running
from infra.devchain import Chain, Serving, serve_in_thread
from infra.exit_codes import ExitCode
from sinks.connection import Connection
from tests.e2e.running import (
    FINALITY_DEPTH,
    PATIENCE_SECONDS,
    Headrace,
    numbers,
    shown,
    small_chain,
    tables,
    until,
)
from tests.stored_truth import assert_stored

KILLS = 10
FIRST_BLOCKS = 120


class Miner:
    """A thread that mines and reorganises a chain at random."""

    def __init__(self, chain: Chain, dice: Random) -> None:
        self.chain, self.dice = chain, dice
        self.reorgs = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._mine, name="miner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _mine(self) -> None:
        while not self._stopping.wait(self.dice.uniform(0.1, 0.6)):
            if self.dice.random() < 0.3:
                self.reorgs += 1
                # Never below what was final: the new branch is longer than what it replaces.
                self.chain.reorg(self.dice.randint(1, FINALITY_DEPTH - 4))
            else:
                self.chain.mine()


@contextmanager
def mined(dice: Random) -> Iterator[tuple[Serving, Miner]]:
    """A served chain that is being mined."""
    chain = small_chain(seed=dice.randrange(1 << 20))
    chain.mine(FIRST_BLOCKS)
    miner = Miner(chain, Random(dice.random()))
    with serve_in_thread(chain) as serving:
        miner.start()
        try:
            yield serving, miner
        finally:
            miner.stop()


@pytest.fixture
def dice() -> Random:
    """Dice whose seed is shown with a failure."""
    seed = os.environ.get("HEADRACE_SEED") or str(secrets.randbelow(1 << 32))
    print(f"repeat with HEADRACE_SEED={seed}")
    return Random(seed)


def check(headrace: Headrace, chain: Chain) -> None:
    """Every table holds the truth, and every reorg that was seen is told."""
    with headrace.stored() as connection:
        head = numbers(connection, "SELECT max(block_number) FROM blocks")[0]
        assert head == chain.head.header.number
        assert_stored(connection, tables(), chain.blocks())
        _check_reorgs(connection, chain)


def _check_reorgs(connection: Connection, chain: Chain) -> None:
    """Each step from one canon row to the next extends the chain, or is told in `reorgs`."""
    canon = connection.execute(
        "SELECT generation, seq, head, head_hash FROM canon ORDER BY generation, seq",
        as_bytes=True,
    )
    rows = connection.execute(
        "SELECT generation, seq, depth_blocks, ancestor_number, ancestor_hash, "
        "removed.1, removed.2, added.1, added.2 FROM reorgs",
        as_bytes=True,
    )
    told = {tuple(row[:2]): row[2:] for row in rows}
    assert len(told) == len(rows), "a reorg is told twice"
    assert told.keys() <= {tuple(row[:2]) for row in canon}, "a reorg is told that never was"
    for before, after in pairwise(canon):
        replaced = not _is_above(chain, after[3], before[3], before[2])
        row = told.get(tuple(after[:2]))
        assert (row is not None) == replaced, f"{before} → {after}: {row}"
        if row is None:
            continue
        depth, ancestor_number, ancestor_hash, *lists = row
        removed = sorted(zip(lists[0], lists[1], strict=True))
        added = sorted(zip(lists[2], lists[3], strict=True))
        assert depth == len(removed) == before[2] - ancestor_number
        assert removed[-1] == (before[2], before[3])
        for branch in (removed, added):
            parent = ancestor_hash
            for number, block_hash in branch:
                node = chain.node(block_hash)
                assert node is not None
                assert node.block.header.number == number
                assert node.block.header.parent_hash == parent
                parent = block_hash


def _is_above(chain: Chain, block_hash: bytes, other: bytes, number: int) -> bool:
    """Whether a block is, or descends from, another at height `number`."""
    while True:
        node = chain.node(block_hash)
        if node is None or node.block.header.number < number:
            return False
        if node.block.header.number == number:
            return block_hash == other
        block_hash = node.block.header.parent_hash


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
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)
            miner.stop()
            head = miner.chain.head.header.number
            until(lambda: shown(headrace) >= head or process.poll() is not None, headrace.said())
            process.send_signal(signal.SIGINT)
            code = process.wait(PATIENCE_SECONDS)
        finally:
            headrace.end(process)
        assert code == ExitCode.interrupted, headrace.said()
        assert "Traceback" not in headrace.log.read_text()
        check(headrace, miner.chain)


def test_killed_with_merges_stopped(tmp_path: Path, dice: Random) -> None:
    with mined(dice) as (serving, miner):
        headrace = Headrace(tmp_path, serving.http_urls)
        for kill in (True, False):
            process = headrace.start("--from", "0")
            until(lambda: find_running(headrace.data) is not None, "ClickHouse is not up")
            running = find_running(headrace.data)
            assert running is not None
            with Connection(running.endpoint()) as connection:
                connection.execute("SYSTEM STOP MERGES")
            time.sleep(dice.uniform(3.0, 6.0))
            if kill:
                headrace.end(process)
        miner.stop()
        head = miner.chain.head.header.number
        until(lambda: shown(headrace) >= head or process.poll() is not None, headrace.said())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted, headrace.said()
        check(headrace, miner.chain)
