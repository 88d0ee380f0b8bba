"""A block to go back to in, views that end there out, and a next run that goes on from it."""

from __future__ import annotations

import pytest

from processors.reorg import from_blocks
from schemas.errors_canon import AboveHead, BelowFloor, NothingVisible, RewindUnfinished
from sinks.canon_row import Rewound
from sinks.canon_table import append_rewind, newest_generation, read_canon
from sinks.connection import Connection, Endpoint
from sinks.rewind import Rewinder
from tests.sinks.rig import Rig, prepare, prove_as, show_any_version
from tests.sinks.small_chain import (
    FACTS,
    STREAMS,
    TABLES,
    SmallChain,
    problem_of,
    read_state,
)


def rewinder(connection: Connection, endpoint: Endpoint) -> Rewinder:
    return Rewinder(connection, endpoint.database, FACTS, TABLES)


def filled(endpoint: Endpoint, chain: SmallChain, seal: bool) -> None:
    with Rig(endpoint, chain) as rig:
        rig.begin()
        rig.grow(3)
        rig.grow(4, back=2)
        rig.publisher.run_once()
        if seal:
            rig.sealer.run_once()
        assert rig.shown().head == chain.head


def go_on(endpoint: Endpoint, chain: SmallChain, reader: Connection) -> None:
    """Another branch is final from here on; everything above is taken again."""
    with Rig(endpoint, chain, 99) as rig:
        row = rig.claim()
        assert row is not None
        chain.fork = from_blocks(1, row.head)
        rig.follow(chain.snapshot_from(None))
        rig.publisher.run_once()
        assert rig.shown().head == row.head, "what was above does not come back"
        rig.grow(12)
        for _ in range(2):
            rig.grow(3)
            rig.grow(2, back=1)
        rig.finalize(2)
        rig.publisher.run_once()
        state = read_state(reader)
        assert state[0] == chain.head.hash
        assert problem_of(chain, state) == ""
        rig.compactor.run_once()
        assert read_state(reader) == state
        rig.sealer.run_once()
        assert read_state(reader) == state
    with Rig(endpoint, chain, 100) as rig:
        rig.claim()
        assert read_state(reader) == state


@pytest.mark.parametrize("to_block", [0, 39, 40, 57, 101])
@pytest.mark.parametrize("seal", [False, True])
def test_views_end_at_the_block_and_the_next_run_goes_on(
    endpoint: Endpoint, to_block: int, seal: bool
) -> None:
    prepare(endpoint)
    chain = SmallChain(31, 100)
    filled(endpoint, chain, seal)
    head = chain.path(chain.head, 0)[to_block]
    with Connection(endpoint) as reader:
        row = rewinder(reader, endpoint).rewind(to_block, "test")
        assert row.head == head
        assert row.finalized is not None
        assert row.finalized.number <= to_block
        state = read_state(reader)
        assert state[0] == head.hash
        assert problem_of(chain, state) == ""
        assert row.sealed == (tuple(p for p in (0, 1) if p * 40 + 39 <= to_block) if seal else ())
        go_on(endpoint, chain, reader)


def test_history_of_the_cut_segment_replaces_what_was_kept_of_it(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(32, 100)
    filled(endpoint, chain, seal=True)
    with Connection(endpoint) as reader:
        rewinder(reader, endpoint).rewind(57, "test")
        with Rig(endpoint, chain, 5) as rig:
            rig.claim()
            rig.write_history(55, 99)
            rig.publisher.run_once()
            assert rig.shown().head.number == 99
            state = read_state(reader)
            assert problem_of(chain, state) == ""
            assert [sealed.partition for sealed in rig.sealer.run_once()] == [1]
            assert read_state(reader) == state
            former = reader.execute(
                "SELECT DISTINCT generation FROM canon WHERE has(sealed, toUInt64(1))"
            )
            assert former == [(rig.publisher.generation,)], "no row means the former seal"


def test_twice_and_deeper(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(33, 100)
    filled(endpoint, chain, seal=True)
    with Connection(endpoint) as reader:
        for to_block in (98, 57, 52, 41, 7):
            rewinder(reader, endpoint).rewind(to_block, "test")
            state = read_state(reader)
            assert state[1][0][0] == to_block + 1
            assert problem_of(chain, state) == ""
        go_on(endpoint, chain, reader)
        assert reader.value("SELECT count() FROM rewinds") == 5


def test_deeper_into_a_partition_that_the_first_rewind_opened(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(33, 100)
    filled(endpoint, chain, seal=True)
    with Connection(endpoint) as reader:
        for to_block in (57, 52):
            rewinder(reader, endpoint).rewind(to_block, "test")
        with Rig(endpoint, chain, 5) as rig:
            rig.claim()
            rig.write_history(50, 99)
            rig.publisher.run_once()
            assert rig.shown().head.number == 99
            assert problem_of(chain, read_state(reader)) == ""


@pytest.mark.parametrize("compacted", [True, False])
@pytest.mark.parametrize("proven", ["alike", "differently"])
def test_into_a_segment_whose_blocks_came_one_by_one(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, proven: str, *, compacted: bool
) -> None:
    """Its history is taken again, whether a fold made one row of its blocks or several."""
    prepare(endpoint)
    chain = SmallChain(15, 40)
    show_any_version(monkeypatch)
    with Rig(endpoint, chain) as rig:
        rig.begin()
        rig.grow(12)
        if proven == "differently":
            prove_as(monkeypatch, "2")
        rig.grow(23)
        rig.finalize(0)
        rig.publisher.run_once()
        if compacted:
            assert rig.compactor.run_once()
    with Connection(endpoint) as reader, Rig(endpoint, chain, 5) as rig:
        rewinder(reader, endpoint).rewind(53, "test")
        rig.claim()
        assert rig.shown().head.number == 53
        assert problem_of(chain, read_state(reader)) == ""
        for stream in STREAMS:
            for first in (50, 55, 60):
                rig.write(stream, [chain.path(chain.head, first)[:5]], "history")
        rig.publisher.run_once()
        assert rig.shown().head.number == 64
        assert problem_of(chain, read_state(reader)) == ""


def test_refusals(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(34, 60)
    with Connection(endpoint) as reader:
        with pytest.raises(NothingVisible):
            rewinder(reader, endpoint).rewind(5, "test")
        with Rig(endpoint, chain, floor=10) as rig:
            rig.begin()
            rig.publisher.run_once()
        with pytest.raises(BelowFloor):
            rewinder(reader, endpoint).rewind(9, "test")
        with pytest.raises(AboveHead):
            rewinder(reader, endpoint).rewind(60, "test")
        assert reader.value("SELECT count() FROM rewinds") == 0
        assert rewinder(reader, endpoint).rewind(10, "test").head == chain.history[10]


def test_rewind_that_was_cut_short_is_finished(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(35, 100)
    filled(endpoint, chain, seal=True)
    with Connection(endpoint) as reader:
        before = read_state(reader)
        intent = Rewound(newest_generation(reader, endpoint.database) + 1, 57)
        shown = read_canon(reader, endpoint.database)
        assert shown is not None
        row = rewinder(reader, endpoint)
        append_rewind(reader, endpoint.database, intent, shown.head.number, row._now(), "cut short")
        assert read_state(reader) == before
        with Rig(endpoint, chain, 5) as rig, pytest.raises(RewindUnfinished):
            rig.claim()
        finished = row.finish()
        assert finished is not None
        assert finished.head.number == 57
        assert row.finish() is None
        assert problem_of(chain, read_state(reader)) == ""
        go_on(endpoint, chain, reader)
