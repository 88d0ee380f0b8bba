"""Loads and fork states into a real ClickHouse, the views out."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.errors_canon import CoreLoadMissing, HeightNotReached, StalePublisher
from schemas.segments import BlockRef
from sinks.canon_row import CanonSettings, PublisherSettings
from sinks.canon_table import append_reorg, read_canon
from sinks.connection import Connection, Endpoint
from tests.patience import PATIENCE_SECONDS
from tests.sinks.rig import Clock, Rig, prepare
from tests.sinks.small_chain import STREAMS, SmallChain, problem_of, read_state

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def assert_shows(rig: Rig, connection: Connection, head: BlockRef) -> None:
    state = read_state(connection)
    assert state[0] == head.hash
    assert problem_of(rig.chain, state) == ""


def test_history_then_head_then_reorg(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(1, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        assert rig.claim() is None
        assert read_state(reader)[0] == b""
        rig.follow(chain.snapshot_from(None))
        rig.write_history()
        rig.publisher.run_once()
        assert_shows(rig, reader, chain.head)
        old = rig.grow(6)
        rig.publisher.run_once()
        assert_shows(rig, reader, chain.head)
        rig.grow(2, back=3)
        rig.publisher.run_once()
        assert_shows(rig, reader, chain.head)
        assert rig.shown().head.number == 24
        ((depth, ancestor, removed),) = reader.execute(
            "SELECT depth_blocks, ancestor_number, arrayMap(r -> r.1, removed) FROM reorgs"
        )
        assert (depth, ancestor, removed) == (3, 22, [25, 24, 23])
        assert rig.changes[-1].reorg is not None
        assert rig.changes[-1].reorg.old_head == old[-1]


def test_blocks_that_nobody_told_of_are_told_by_their_rows(endpoint: Endpoint) -> None:
    """The fork's followers were away while 22 and 23 left; history brings what joined."""
    prepare(endpoint)
    chain, clock = SmallChain(6, 20), Clock()
    with Rig(endpoint, chain, clock=clock) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.grow(4)
        rig.publisher.run_once()
        assert_shows(rig, reader, chain.head)
        joined, _ = chain.extend(14, back=2)
        chain.finalize(1)
        for stream in STREAMS:
            for first in (20, 25, 30):
                rig.write(stream, [chain.path(chain.head, first)[:5]], "history")
        rig.follow(chain.snapshot_from(None))
        rig.write_head(joined[-1:])
        for _ in range(2):
            rig.publisher.run_once()
            clock.now += 5.0
        assert_shows(rig, reader, chain.head)
        change = rig.changes[-1]
        assert change.reorg is not None
        assert change.reorg.added == tuple(joined[:3]), "the canon asks for the lowest segment only"
        ((told,),) = reader.execute("SELECT added FROM reorgs", as_bytes=True)
        assert told == [(ref.number, ref.hash) for ref in joined]


def test_a_doubt_whose_rows_are_lost_is_told_and_ends_when_they_are_loaded_again(
    endpoint: Endpoint,
) -> None:
    prepare(endpoint)
    chain, clock = SmallChain(6, 20), Clock()
    with Rig(endpoint, chain, clock=clock) as rig, Connection(endpoint) as reader:
        rig.begin()
        shown = rig.grow(4)[-1]
        rig.publisher.run_once()
        chain.extend(8, back=2)
        chain.finalize(0)
        whole = chain.path(chain.head, 20)[:5]
        loads = {stream: rig.write(stream, [whole], "history") for stream in STREAMS}
        reader.execute(
            f"DELETE FROM blocks_open WHERE load_id = {loads['blocks']}",
            settings={"lightweight_deletes_sync": 2},
        )
        rig.publisher.run_once()
        assert rig.publisher.doubt is None
        rig.follow(chain.snapshot_from(None))
        for _ in range(3):
            rig.publisher.run_once()
            clock.now += 60.0
        assert rig.publisher.doubt == (whole[-1], 19)
        assert rig.shown().head == shown
        rig.write("blocks", [whole], "history")
        rig.publisher.run_once()
        assert rig.publisher.doubt is None
        assert rig.shown().head == whole[-1]


def test_a_new_publisher_takes_up_and_a_stale_one_is_never_seen(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(2, 20)
    with Rig(endpoint, chain, 1, clock=Clock()) as stale, Connection(endpoint) as reader:
        stale.begin()
        stale.grow(3)
        stale.publisher.run_once()
        before = stale.shown()
        with Rig(endpoint, chain, 2) as fresh:
            row = fresh.claim()
            assert row is not None
            assert (row.generation, row.seq) == (before.generation + 1, 0)
            assert (row.head, row.loads) == (before.head, before.loads)
            made, _ = chain.extend(1)
            stale.write_head(made)
            stale.publisher.change(lambda canon: canon.fork.apply(chain.snapshot_from(None)[0]))
            stale.publisher.run_once()
            assert stale.shown().head == chain.head, "the stale one believes it shows the block"
            assert_shows(fresh, reader, before.head)
            fresh.follow(chain.snapshot_from(None))
            fresh.write_head(made)
            fresh.publisher.run_once()
            assert_shows(fresh, reader, chain.head)
            stale.publisher.change(lambda canon: canon.freeze(0))
            stale.publisher._checked_at = 0.0
            with pytest.raises(StalePublisher):
                stale.publisher.run_once()


def test_a_reorg_that_was_never_shown_is_not_told(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(5, 20)
    sql = "SELECT generation, seq FROM reorgs ORDER BY ALL"
    with Rig(endpoint, chain, 1) as rig, Connection(endpoint) as connection:
        rig.begin()
        rig.grow(6)
        rig.publisher.run_once()
        rig.grow(2, back=3)
        rig.publisher.run_once()
        told = connection.execute(sql)
        change = rig.changes[-1]
        assert change.reorg is not None
        assert told == [(change.row.generation, change.row.seq)]
        never = replace(change.row, seq=change.row.seq + 1)
        append_reorg(
            connection, connection.value("SELECT currentDatabase()"), never, change.reorg, NOW
        )
        assert len(connection.execute(sql)) == 2
        with Rig(endpoint, chain, 2) as fresh:
            fresh.claim()
            assert connection.execute(sql) == told


def test_restart_at_every_point_of_a_run_changes_nothing(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(3, 30)
    with Rig(endpoint, chain, 1) as rig:
        rig.begin()
        rig.publisher.run_once()
    for step in range(12):
        with Rig(endpoint, chain, 10 + step) as rig, Connection(endpoint) as reader:
            before = read_canon(reader, endpoint.database)
            row = rig.claim()
            assert row is not None
            assert before is not None
            assert (row.head, row.loads, row.sealed) == (before.head, before.loads, before.sealed)
            rig.follow(chain.snapshot_from(row.finalized))
            rig.grow(1 + step % 4, back=step % 3)
            rig.finalize(8)
            rig.publisher.run_once()
            assert_shows(rig, reader, chain.head)
            if step % 3 == 0:
                rig.compactor.run_once()
            if step % 4 == 0:
                rig.sealer.run_once()
            assert_shows(rig, reader, chain.head)


def test_thread_waits_for_heights_and_polls_others_loads(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(4, 20)
    settings = PublisherSettings(coalesce_seconds=0.02, poll_seconds=0.02)
    with Rig(endpoint, chain, settings=settings) as rig, Connection(endpoint) as reader:
        rig.claim()
        with pytest.raises(HeightNotReached):
            rig.publisher.wait_for_height(19, 0.0)
        rig.publisher.start()
        rig.follow(chain.snapshot_from(None))
        waits = threading.Thread(target=rig.publisher.wait_for_height, args=(22, PATIENCE_SECONDS))
        waits.start()
        segments = [chain.history[at : at + 5] for at in range(0, 20, 5)]
        for stream in STREAMS:
            rig.write(stream, segments, "history", notify=False)
        made, updates = chain.extend(3)
        rig.follow(updates)
        for ref in made:
            for stream in STREAMS:
                rig.write(stream, [[ref]], "head", notify=False)
        waits.join()
        assert rig.publisher.wait_for_height(22, PATIENCE_SECONDS).head == chain.head
        assert_shows(rig, reader, chain.head)


def test_where_others_count_a_lost_load_is_told_for_ever(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(5, 20)
    clock = Clock()
    settings = PublisherSettings(
        coalesce_seconds=0.0, missing_attempts_max=None, canon=CanonSettings(missing_after_ms=1_000)
    )
    with Rig(endpoint, chain, settings=settings, clock=clock) as rig:
        rig.begin()
        made, updates = chain.extend(1)
        rig.follow(updates)
        rig.write("blocks", [made], "head")
        for _ in range(12):
            rig.publisher.run_once()
            clock.now += 1.5
        assert sum(lost.stream == "logs" for lost in rig.missing) >= 10


def test_lost_load_is_asked_for_then_halts(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(5, 20)
    clock = Clock()
    settings = PublisherSettings(
        coalesce_seconds=0.0, missing_attempts_max=2, canon=CanonSettings(missing_after_ms=1_000)
    )
    with Rig(endpoint, chain, settings=settings, clock=clock) as rig:
        rig.begin()
        made, updates = chain.extend(1)
        rig.follow(updates)
        rig.write("blocks", [made], "head")
        for _ in range(3):
            rig.publisher.run_once()
            clock.now += 1.5
        assert {(lost.stream, lost.from_block) for lost in rig.missing} == {
            ("logs", 20),
            ("events", 20),
        }
        clock.now += 1.5
        with pytest.raises(CoreLoadMissing):
            rig.publisher.run_once()
