"""ClickHouse killed at random moments in, exactly the chain out, however often it is."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.clickhouse.server import EmbeddedServer
from schemas.errors import HeadraceError, Transient
from sinks.canon_row import PublisherSettings
from sinks.connection import Connection, Endpoint
from sinks.rewind import Rewinder
from tests.sinks.rig import Rig, prepare
from tests.sinks.small_chain import FACTS, TABLES, SmallChain, problem_of, read_state

DATABASE = "killed"


class Doomed:
    """Makes connections; kills the server a little after a given number of calls."""

    def __init__(self, server: EmbeddedServer, calls: int, delay_seconds: float) -> None:
        self.server, self.calls, self.delay_seconds = server, calls, delay_seconds

    def connect(self, endpoint: Endpoint) -> Connection:
        doom = self

        class Counted(Connection):
            @contextmanager
            def _guarded(self) -> Iterator[None]:
                doom.count()
                with super()._guarded():
                    yield

        return Counted(endpoint)

    def count(self) -> None:
        self.calls -= 1
        if self.calls == 0:
            threading.Timer(self.delay_seconds, os.kill, (self.server.pid, signal.SIGKILL)).start()


class Work(threading.Thread):
    """Feeds, folds, seals and sweeps until ClickHouse is gone."""

    def __init__(self, rig: Rig, seed: int) -> None:
        super().__init__(name="work")
        self.rig, self.rng = rig, random.Random(seed)
        self.unexpected: list[HeadraceError] = []
        self.steps = 0

    def run(self) -> None:
        rig, rng = self.rig, self.rng
        try:
            resume(rig)
            while True:
                self.steps += 1
                rig.grow(rng.randrange(1, 4), back=rng.randrange(0, 3))
                rig.finalize(rng.randrange(5, 8))
                rig.publisher.run_once()
                rig.heal()
                if rng.random() < 0.4:
                    rig.compactor.run_once()
                if rng.random() < 0.4:
                    rig.sealer.run_once()
                if rng.random() < 0.2:
                    rig.sweeper.run_once()
        except Transient:
            return
        except HeadraceError as error:
            self.unexpected.append(error)


def resume(rig: Rig) -> None:
    """Claim, then load again whatever is not known to be visible and final."""
    Rewinder(rig.writes, rig.database, FACTS, TABLES).finish()
    row = rig.claim()
    anchor = rig.chain.history[-1]
    if row is None or row.head.number < anchor.number:
        rig.follow(rig.chain.snapshot_from(anchor))
        rig.write_history()
        first = anchor.number + 1
    else:
        assert row.finalized is not None
        rig.follow(rig.chain.snapshot_from(row.finalized))
        first = row.finalized.number + 1
    if first <= rig.chain.head.number:
        rig.write_head(rig.chain.path(rig.chain.head, first))
    rig.publisher.run_once()


def endpoint_of(server: EmbeddedServer) -> Endpoint:
    with Connection(server.endpoint()) as admin:
        admin.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    return server.endpoint(database=DATABASE)


@pytest.mark.parametrize("seed", [51])
def test_killed_at_random_moments_and_started_again(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chain, rng = SmallChain(seed, 40), random.Random(seed)
    steps = 0
    for life in range(6):
        server = EmbeddedServer(tmp_path / "data", chain="test", supervise=False)
        with server:
            endpoint = endpoint_of(server)
            prepare(endpoint)
            with Connection(endpoint) as reader:
                assert problem_of(chain, read_state(reader)) == ""
            doomed = Doomed(server, rng.randrange(20, 400), rng.uniform(0.0, 0.02))
            with Rig(endpoint, chain, 100 * seed + life, connect=doomed.connect) as rig:
                work = Work(rig, 100 * seed + life)
                work.start()
                work.join()
                assert work.unexpected == []
                steps += work.steps
    assert steps > 3
    with (
        EmbeddedServer(tmp_path / "data", chain="test", supervise=False) as server,
        Rig(endpoint_of(server), chain, 999) as rig,
        Connection(rig.endpoint) as reader,
    ):
        assert problem_of(chain, read_state(reader)) == ""
        resume(rig)
        rig.publisher.start()
        rig.catch_up()
        rig.compactor.run_once()
        rig.sealer.run_once()
        state = read_state(reader)
        assert state[0] == chain.head.hash
        assert problem_of(chain, state) == ""
        assert len(rig.shown().sealed) > 0
        rows = reader.execute("SELECT count(), uniqExact(block_number, block_hash) FROM blocks")
        assert rows == [(chain.head.number + 1, chain.head.number + 1)]


def test_publisher_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    chain = SmallChain(53, 20)
    with (
        EmbeddedServer(tmp_path / "data", chain="test") as server,
        Rig(endpoint_of(server), chain, 53, settings=PublisherSettings()) as rig,
    ):
        prepare(rig.endpoint)
        rig.begin()
        rig.publisher.start()
        rig.catch_up()
        made, updates = chain.extend(3)
        rig.write_head(made)
        os.kill(server.pid, signal.SIGKILL)
        rig.follow(updates)
        rig.catch_up()
        assert rig.publisher.failure is None
        with Connection(rig.endpoint) as reader:
            state = read_state(reader)
        assert state[0] == chain.head.hash
        assert problem_of(chain, state) == ""
