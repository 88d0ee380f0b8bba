"""A reader beside reorgs, folds, seals and zombies: it only ever sees what a legal chain had."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from schemas.errors import HeadraceError
from schemas.errors_sinks import QueryTimedOut
from schemas.segments import BlockRef
from sinks.compaction import Folded
from sinks.connection import Connection, Endpoint
from sinks.sealer import Sealed
from sinks.upkeep import Upkeep
from tests.patience import PATIENCE_SECONDS
from tests.sinks.rig import QUERY_SECONDS_MAX, Rig, prepare
from tests.sinks.small_chain import (
    STREAMS,
    TABLES,
    SmallChain,
    problem_of,
    read_state,
    write_load,
)


class Reader(threading.Thread):
    """Polls every view, and joins three of them, in one query."""

    def __init__(self, endpoint: Endpoint, chain: SmallChain) -> None:
        super().__init__(name="reader")
        self.endpoint, self.chain = endpoint, chain
        self.problems: list[str] = []
        self.heads: Counter[bytes] = Counter()
        self.done = threading.Event()

    def run(self) -> None:
        with Connection(self.endpoint) as connection:
            while not self.done.is_set() and not self.problems:
                try:
                    state = read_state(connection, max_execution_time=QUERY_SECONDS_MAX)
                except QueryTimedOut:
                    # What it read may have been swept away meanwhile, as is said.
                    continue
                except HeadraceError as error:
                    self.problems.append(str(error))
                    return
                self.heads[state[0]] += 1
                if problem := problem_of(self.chain, state):
                    self.problems.append(problem)


class Zombie(threading.Thread):
    """A writer that lost its lease: whole loads of what is there already, and orphan blocks."""

    def __init__(self, endpoint: Endpoint, rig: Rig, seed: int) -> None:
        super().__init__(name="zombie")
        self.endpoint, self.rig, self.rng = endpoint, rig, random.Random(seed)
        self.seen: list[BlockRef] = list(rig.chain.history[-1:])
        self.loads = 0
        self.problems: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        chain, rng = self.rig.chain, self.rng
        with Connection(self.endpoint) as connection:
            while not self.done.wait(0.05):
                if rng.random() < 0.3:
                    at = rng.randrange(len(chain.history) // 5) * 5
                    segments, lane = [chain.history[at : at + 5]], "history"
                else:
                    segments, lane = [[rng.choice(self.seen[-30:])]], "head"
                with_ledger = rng.random() < 0.6
                rows = write_load(
                    connection,
                    self.endpoint.database,
                    rng.choice(STREAMS),
                    "history" if lane == "history" else "head",
                    [chain.with_parents(blocks) for blocks in segments],
                    rng.getrandbits(64),
                    self.rig.publisher.generation,
                    with_ledger=with_ledger,
                )
                if with_ledger and rng.random() < 0.5:
                    self.rig.publisher.notify(rows)
                self.loads += 1


def apply_variant(connection: Connection, variant: str) -> None:
    for table in TABLES:
        for suffix in ("_open", "_sealed"):
            name = f"{table.name}{suffix}"
            if variant == "merges stopped":
                connection.execute(f"SYSTEM STOP MERGES {connection.endpoint.database}.{name}")
            elif variant == "deduplication on":
                connection.execute(
                    f"ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = 1000"
                )


@pytest.mark.parametrize(
    ("variant", "seed", "reorgs"),
    [("deduplication off", 41, 100), ("deduplication on", 42, 40), ("merges stopped", 43, 40)],
)
def test_reader_sees_only_legal_chains(
    endpoint: Endpoint, variant: str, seed: int, reorgs: int
) -> None:
    print(f"seed {seed}, {variant}")
    prepare(endpoint)
    chain = SmallChain(seed, 60)
    rng = random.Random(seed)
    with Connection(endpoint) as connection:
        apply_variant(connection, variant)
    with Rig(endpoint, chain, seed) as rig:
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.publisher.start()
        reader = Reader(endpoint, chain)
        zombie = Zombie(endpoint, rig, seed + 1000)
        done: list[Folded | Sealed] = []
        upkeep = Upkeep(
            rig.compactor, rig.sealer, rig.sweeper, pause_seconds=0.1, on_done=done.append
        )
        upkeep.start()
        threads = (reader, zombie)
        for thread in threads:
            thread.start()

        def lacking() -> dict[str, int]:
            """What has not happened often enough yet: how fast each goes on is the machine's."""
            kinds = Counter(type(chore) for chore in done)
            often = reorgs // 10
            wanted = {
                "reorgs shown": (sum(change.reorg is not None for change in rig.changes), often),
                "folds": (kinds[Folded], often),
                "seals": (kinds[Sealed], 1),
                "zombie loads": (zombie.loads, often),
                "heads read": (len(reader.heads), often),
            }
            return {what: times for what, (times, least) in wanted.items() if times < least}

        def left() -> float:
            return max(until - time.monotonic(), PATIENCE_SECONDS / 8)

        steps = 0
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            rig.write_history()
            while (steps < reorgs or lacking()) and time.monotonic() < until:
                made, updates = chain.extend(rng.randrange(0, 4), back=rng.randrange(1, 5))
                zombie.seen += made
                rig.follow(updates)
                loads = [(ref, stream) for ref in made for stream in STREAMS]
                rng.shuffle(loads)
                for ref, stream in loads:
                    rig.write(stream, [[ref]], "head")
                grown = rig.grow(rng.randrange(1, 4))
                zombie.seen += grown
                rig.finalize(rng.randrange(6, 10))
                if steps % 5 == 0:
                    rig.catch_up(left())
                steps += 1
                if upkeep.failure or not all(thread.is_alive() for thread in threads):
                    break
            rig.catch_up(left())
            dead = [thread.name for thread in threads if not thread.is_alive()]
        finally:
            for thread in threads:
                thread.done.set()
            for thread in threads:
                thread.join()
            upkeep.stop()
        assert upkeep.failure is None
        assert [problem for thread in threads for problem in thread.problems] == []
        assert dead == []
        assert rig.publisher.failure is None
        assert rig.shown().head == chain.head
        with Connection(endpoint) as connection:
            state = read_state(connection)
        assert state[0] == chain.head.hash
        assert problem_of(chain, state) == ""
        assert lacking() == {}
        found = Counter(change.reorg is not None for change in rig.changes)
        kinds = Counter(type(chore).__name__ for chore in done)
        print(
            f"{sum(reader.heads.values())} reads of {len(reader.heads)} heads, {found[True]} "
            f"reorgs shown in {len(rig.changes)} rows, {kinds['Folded']} folds, "
            f"{kinds['Sealed']} seals, {zombie.loads} zombie loads"
        )
