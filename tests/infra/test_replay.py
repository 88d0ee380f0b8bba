"""Which segments a replay has come again, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from infra.display import Display
from infra.replay import Replay, Replayed, next_generation, show_replayed, wait_for
from infra.terminal import Terminal
from schemas.errors_canon import NothingVisible
from schemas.errors_replay import ReplayRangeEmpty
from sinks.connection import Connection, Endpoint
from sinks.fresh import Fresh
from tests.sinks.rig import Rig, prepare
from tests.sinks.small_chain import FACTS, STREAMS, TABLES, SmallChain

BLOCKS = 60


class Loads:
    """Loads what it is asked for, as the pipeline would; remembers what that was."""

    def __init__(self, endpoint: Endpoint, chain: SmallChain) -> None:
        self.endpoint, self.chain = endpoint, chain
        self.starts: list[int] = []

    def load(self, starts: Sequence[int], loaded: Callable[[], Fresh]) -> None:
        self.starts += starts
        blocks = self.chain.path(self.chain.head, 0)
        final = self.chain.fork.finalized.number
        with Rig(self.endpoint, self.chain, len(self.starts)) as rig:
            for start in starts:
                for stream in STREAMS:
                    for block in blocks[start : start + 5] if start + 4 > final else ():
                        rig.write(stream, [[block]], "head", notify=False)
                    if start + 4 <= final:
                        rig.write(stream, [blocks[start : start + 5]], "history", notify=False)
        assert {start for _, start in loaded()} == set(starts)


@pytest.fixture
def filled(endpoint: Endpoint) -> tuple[Endpoint, SmallChain]:
    """60 final blocks from block 7 on, the newest five not loaded; ten blocks above them."""
    prepare(endpoint)
    chain = SmallChain(51, BLOCKS)
    with Rig(endpoint, chain, floor=7) as rig:
        rig.claim()
        rig.write_history(5, 54)
        rig.publisher.run_once()
        assert rig.shown().head.number == 54
    chain.extend(10, 0)
    return endpoint, chain


def replayed(
    filled: tuple[Endpoint, SmallChain],
    first: int,
    last: int,
    *,
    beyond: bool,
    told: int | None = None,
) -> Any:
    """The starts that came again, and how many of them were not compared."""
    endpoint, chain = filled
    out = Console(file=StringIO())
    with Connection(endpoint) as reader:
        storage: Any = SimpleNamespace(
            reader=reader,
            connect=lambda: reader,
            database=endpoint.database,
            facts=FACTS,
            tables=TABLES,
        )
        loads = Loads(endpoint, chain)
        display = Display(Terminal(out, out))
        claim = next_generation
        replay = Replay(storage, loads, lambda: claim(lambda: 1), display, beyond=beyond, told=told)
        done = replay.run(first, last)
    assert done.mended == []
    return loads.starts, done.uncompared


@pytest.mark.parametrize(
    ("first", "last", "beyond", "starts", "uncompared"),
    [
        (0, 1_000, False, list(range(5, 55, 5)), 0),
        (12, 13, False, [10], 0),
        (48, 57, False, [45, 50], 0),
        (48, 57, True, [45, 50, 55], 1),
        (61, 69, True, [60, 65], 2),
    ],
)
def test_whole_segments_come_again(
    filled: tuple[Endpoint, SmallChain],
    first: int,
    last: int,
    beyond: bool,
    starts: list[int],
    uncompared: int,
) -> None:
    assert replayed(filled, first, last, beyond=beyond) == (starts, uncompared)


@pytest.mark.parametrize(
    ("segments", "uncompared", "words"),
    [
        (4, 0, "came again: nothing was wrong, and nothing has changed"),
        (4, 1, "nothing has changed; 1 segment(s) were not visible, or not final: loaded, not"),
        (4, 4, "came again: 4 segment(s) were not visible, or not final: loaded, not compared"),
    ],
)
def test_what_was_not_compared_is_not_called_right(
    segments: int, uncompared: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Console(file=StringIO())
    show_replayed(Replayed(0, 19, segments, uncompared), Display(Terminal(out, out)))
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "beyond", "again"),
    [
        (29, True, ([10, 15, 20, 25], 2)),
        (29, False, ([10, 15], 0)),
        (26, True, ([10, 15, 20, 25], 2)),
    ],
)
def test_what_is_visible_and_not_final_is_loaded_again(
    endpoint: Endpoint, told: int, *, beyond: bool, again: tuple[list[int], int]
) -> None:
    """As far as there are blocks: nobody waits for the rest of the head's segment."""
    prepare(endpoint)
    chain = SmallChain(52, 20)
    with Rig(endpoint, chain) as rig:
        rig.begin()
        rig.grow(told - 19)
        rig.publisher.run_once()
        assert rig.shown().head.number == told
    assert replayed((endpoint, chain), 12, told, beyond=beyond, told=told) == again


def test_a_range_of_nothing_is_refused(filled: tuple[Endpoint, SmallChain]) -> None:
    with pytest.raises(ReplayRangeEmpty):
        replayed(filled, 55, 60, beyond=False)


def test_what_was_never_sent_is_not_waited_for(filled: tuple[Endpoint, SmallChain]) -> None:
    assert replayed(filled, 48, 1_000, beyond=True, told=69) == ([45, 50, 55, 60, 65], 3)
    with pytest.raises(ReplayRangeEmpty):
        replayed(filled, 70, 1_000, beyond=True, told=69)


def test_an_empty_database_is_refused(endpoint: Endpoint) -> None:
    prepare(endpoint)
    with pytest.raises(NothingVisible):
        replayed((endpoint, SmallChain(1, 5)), 0, 4, beyond=False)


def test_waiting_ends_when_all_is_there_or_nothing_comes() -> None:
    now, found = [0.0], dict[tuple[str, int], Any]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] <= 3:
            found["logs", int(now[0])] = None

    timing: Any = {"clock": lambda: now[0], "sleep": sleep}
    assert len(wait_for(lambda: dict(found), 2, 5.0, 1.0, **timing)) == 2
    assert now[0] == 2
    assert len(wait_for(lambda: dict(found), 9, 5.0, 1.0, **timing)) == 3
    assert now[0] == 9
