"""Workers that die, stand still and come back in, in any order: no chain misses a head."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.fork import ForkLimits
from processors.fork_codec import KeptFork, decode_fork, encode_fork
from processors.heads import NOTHING, first_unheard, hear
from schemas.errors_process import HeadsLost
from tests.processors.head_words import Message, random_heads

LIMITS = ForkLimits()
WORKERS = 3
HEADS = 40

Forks = dict[int, KeptFork]
Step = tuple[str, int, int]


def topic(seed: int, chains: int) -> list[Message]:
    """The heads of several chains as they lie in one topic; some chains begin late."""
    rng = random.Random(seed)
    rest = {n: random_heads(rng, HEADS // chains) for n in range(1, chains + 1)}
    mixed: list[Message] = []
    while any(rest.values()):
        chain = rng.choice([n for n, told in rest.items() if told])
        mixed.append(replace(rest[chain].pop(0), chain_id=chain))
    return mixed


def straight(told: list[Message]) -> Forks:
    forks: Forks = {}
    for offset, one in enumerate(told):
        kept = forks.get(one.chain_id, NOTHING)
        forks[one.chain_id] = hear(kept, offset, one, LIMITS).kept
    return forks


class Brokers:
    """The topic, the changelog of which the last state of a chain is kept, and the commits."""

    def __init__(self, told: list[Message]) -> None:
        self.told, self.arrived = told, 0
        self.changelog: dict[int, bytes] = {}
        self.committed: int | None = None
        self.owner: Worker | None = None


class Worker:
    """The reorg agent's order of reading and writing; an owner, or one that believes to be."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._changed: set[int] = set()
        self._next = brokers.committed or 0
        brokers.owner = self
        stored = brokers.changelog.items()
        self.forks: Forks = {chain: decode_fork(value, LIMITS) for chain, value in stored}
        begin = first_unheard(self.forks.values(), brokers.committed, 0)
        for offset in range(begin, brokers.arrived):
            self._hear(offset)

    def live(self, count: int) -> None:
        """Hear what its consumer brings: from the commit on, without a gap."""
        for _ in range(min(count, self._brokers.arrived - self._next)):
            self._hear(self._next)
            self._next += 1

    def write(self, chains: int) -> None:
        """Write states, of some chains alone: it may be killed, or stand still, half way."""
        for chain in sorted(self._changed)[:chains]:
            self._brokers.changelog[chain] = encode_fork(self.forks[chain])
            self._changed.discard(chain)

    def commit(self) -> None:
        """Commit what was written; the brokers let the owner alone."""
        if not self._changed and self._brokers.owner is self:
            self._brokers.committed = max(self._next, self._brokers.committed or 0) or None

    def _hear(self, offset: int) -> None:
        one = self._brokers.told[offset]
        kept = self.forks.get(one.chain_id, NOTHING)
        heard = hear(kept, offset, one, LIMITS).kept
        if heard is not kept:
            self._changed.add(one.chain_id)
        self.forks[one.chain_id] = heard


steps = st.tuples(
    st.sampled_from(["arrive", "begin", "live", "live", "write", "write", "commit"]),
    st.integers(0, WORKERS - 1),
    st.integers(1, 12),
)


@given(st.integers(0, 2**16), st.integers(1, 3), st.lists(steps, max_size=60))
@example(
    # The second worker hears, writes and commits all; then the first writes its older state.
    1,
    1,
    [
        ("arrive", 0, 12),
        ("begin", 0, 1),
        ("live", 0, 5),
        ("begin", 1, 1),
        ("live", 1, 12),
        ("write", 1, 1),
        ("commit", 1, 1),
        ("write", 0, 1),
    ],
)
def test_no_schedule_loses_a_head(seed: int, chains: int, schedule: list[Step]) -> None:
    """A worker that is replaced goes on until it is: it hears and writes, but cannot commit."""
    told = topic(seed, chains)
    brokers = Brokers(told)
    workers: dict[int, Worker] = {}
    for action, number, count in schedule:
        one = workers.get(number)
        if action == "arrive":
            brokers.arrived = min(brokers.arrived + count, len(told))
        elif action == "begin":
            workers[number] = Worker(brokers)
        elif one is not None and action == "live":
            one.live(count)
        elif one is not None and action == "write":
            one.write(count % 4)
        elif one is not None:
            one.commit()
    brokers.arrived = len(told)

    assert Worker(brokers).forks == straight(told)


def test_reading_begins_above_the_oldest_state_or_at_the_commit() -> None:
    forks = [KeptFork(None, 20), KeptFork(None, 11)]

    assert first_unheard(forks, 30, 0) == 12
    assert first_unheard(forks, 5, 0) == 5
    assert first_unheard(forks, None, 3) == 3, "a chain without a state may begin anywhere"
    assert first_unheard([], 30, 0) == 30
    assert first_unheard([NOTHING], 30, 4) == 4, "made anew"
    assert first_unheard([], 30, 40) == 40


def test_a_state_that_lacks_what_is_gone_is_said() -> None:
    forks = [KeptFork(None, 20), KeptFork(None, 11)]
    assert first_unheard(forks, 30, 12) == 12
    with pytest.raises(HeadsLost, match="HR-6209: the heads at offsets 12 to 14 are gone"):
        first_unheard(forks, 30, 15)
