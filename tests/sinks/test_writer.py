from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.clickhouse.server import EmbeddedServer
from schemas.chains import load_chains
from schemas.columns import ColumnBlock
from schemas.errors_sinks import (
    ClickHouseUnreachable,
    ColumnsMismatch,
    DiskFull,
    QueryRefused,
    UnknownTable,
    WriteAbandoned,
)
from sinks.checksum import stored_manifest
from sinks.connection import Connection, Endpoint
from sinks.known_segments import durable_names
from sinks.ledger import read_ledger
from sinks.load_block import LOADS_MAX
from sinks.migrate import prepare_database
from sinks.native import NativeBlock
from sinks.writer import Segment, Writer, WriterSettings, table_blocks
from tests.sinks.segments_of import TABLES, blocks_of, events_of, logs_of

CHAIN = load_chains()["local"].resized(10, 100)


def writer_to(connection: Connection, database: str, **options: Any) -> Writer:
    prepare_database(connection, database, TABLES, CHAIN, 1337)
    options.setdefault("sleep", lambda _seconds: None)
    return Writer(connection, database, TABLES, CHAIN.partition_blocks, **options)


class Faulty:
    """A connection whose inserts fail as told, before or after they reach ClickHouse."""

    def __init__(self, inner: Connection, faults: list[tuple[str, Exception] | None]) -> None:
        self.inner = inner
        self.faults = faults
        self.inserts = 0

    def _pass(self, insert: Any, *arguments: Any) -> None:
        fault = self.faults[self.inserts] if self.inserts < len(self.faults) else None
        self.inserts += 1
        if fault and fault[0] == "before":
            raise fault[1]
        insert(*arguments)
        if fault:
            raise fault[1]

    def insert_block(self, table: str, block: NativeBlock) -> None:
        self._pass(self.inner.insert_block, table, block)

    def insert_rows(self, table: str, columns: Any, rows: Any) -> None:
        self._pass(self.inner.insert_rows, table, columns, rows)


@pytest.mark.parametrize("make", [logs_of, blocks_of, events_of])
def test_a_load_holds_its_segments_and_the_ledger_says_so(make: Any, database: Connection) -> None:
    name = database.endpoint.database
    writer = writer_to(database, name, generation=4)
    segments = [make(0, 9), make(10, 19), make(20, 29, rows=0)]
    load = writer.write(segments)
    assert load.attempts == 1
    assert (load.partition, load.lane) == (0, "history")
    rows = read_ledger(database, name)
    assert [row.name(1337) for row in rows] == [segment.name for segment in segments]
    assert {(row.load_id, row.generation) for row in rows} == {(load.load_id, 4)}
    declared = {table.name for table in TABLES if table.stream == segments[0].name.stream}
    assert all(set(row.tables) == declared for row in rows)
    by_name = {table.name: table for table in TABLES}
    for row in rows:
        for table, manifest in row.manifest().items():
            place = f"{name}.{table}_open"
            where = f"block_number BETWEEN {row.from_block} AND {row.to_block}"
            assert stored_manifest(database, place, by_name[table], where) == manifest
    assert load.rows == sum(
        block.rows for segment in segments for block in table_blocks(segment).values()
    )


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("which", range(4))
def test_a_failed_insert_is_done_again_under_a_new_load(
    place: str, which: int, database: Connection
) -> None:
    name = database.endpoint.database
    prepare_database(database, name, TABLES, CHAIN, 1337)
    broken = ClickHouseUnreachable(address="x", detail="broken pipe")
    # blocks, transactions, ledger of the first attempt; then the second one's first insert.
    faults: list[tuple[str, Exception] | None] = [None] * which + [(place, broken)]
    faulty = Faulty(database, faults)
    ids = iter([11, 22, 33])
    waits: list[float] = []
    writer = Writer(
        faulty,  # type: ignore[arg-type]
        name,
        TABLES,
        CHAIN.partition_blocks,
        sleep=waits.append,
        jitter=lambda: 1.0,
        new_load_id=lambda: next(ids),
    )
    segment = blocks_of(10, 19)
    load = writer.write([segment])
    retried = which < 3
    assert load.load_id == (22 if retried else 11)
    assert len(waits) == (1 if retried else 0)
    accepted = [row for row in read_ledger(database, name) if row.load_id == load.load_id]
    assert [row.name(1337) for row in accepted] == [segment.name]
    count = database.value(
        f"SELECT count() FROM {name}.transactions_open WHERE load_id = {load.load_id}"
    )
    assert count == 20


def test_segments_stored_apart_share_their_inserts_and_count_each_on_its_own(
    database: Connection,
) -> None:
    name = database.endpoint.database
    prepare_database(database, name, TABLES, CHAIN, 1337)
    counting = Faulty(database, [])
    ids = iter([11, 22, 33])
    writer = Writer(
        counting,  # type: ignore[arg-type]
        name,
        TABLES,
        CHAIN.partition_blocks,
        new_load_id=lambda: next(ids),
    )
    segments = [blocks_of(5, 5), blocks_of(6, 6, rows=0), blocks_of(7, 7, rows=3)]
    loads = writer.write_apart(segments)
    assert [load.load_id for load in loads] == [11, 22, 33]
    assert [load.rows for load in loads] == [21, 1, 4]
    # Blocks, transactions and the ledger: one insert each.
    assert counting.inserts == 3
    ledger = {row.load_id: row for row in read_ledger(database, name)}
    for load, segment in zip(loads, segments, strict=True):
        assert load.ledger[0].name(1337) == ledger[load.load_id].name(1337) == segment.name
        for table in TABLES:
            if table.stream == "blocks":
                where = f"load_id = {load.load_id}"
                stored = stored_manifest(database, f"{name}.{table.name}_open", table, where)
                assert stored == load.ledger[0].manifest()[table.name]


def test_what_fails_apart_is_done_again_as_a_whole_under_new_loads(database: Connection) -> None:
    name = database.endpoint.database
    prepare_database(database, name, TABLES, CHAIN, 1337)
    broken = ClickHouseUnreachable(address="x", detail="broken pipe")
    # The ledger's insert fails although it reached ClickHouse.
    faulty = Faulty(database, [None, ("after", broken)])
    ids = iter([11, 22, 33, 44])
    writer = Writer(
        faulty,  # type: ignore[arg-type]
        name,
        TABLES,
        CHAIN.partition_blocks,
        sleep=lambda _: None,
        new_load_id=lambda: next(ids),
    )
    loads = writer.write_apart([logs_of(5, 5), logs_of(6, 6)])
    assert [(load.load_id, load.attempts) for load in loads] == [(33, 2), (44, 2)]
    assert {row.load_id for row in read_ledger(database, name)} == {11, 22, 33, 44}


def test_one_insert_carries_the_rows_of_no_more_loads_than_fit(database: Connection) -> None:
    writer = writer_to(database, database.endpoint.database)
    most = [logs_of(n % 100, n % 100, rows=1, seed=n) for n in range(LOADS_MAX)]
    loads = writer.write_apart(most)
    rows = database.execute("SELECT toUInt64(load_id), count() FROM logs_open GROUP BY load_id")
    assert dict(rows) == {load.load_id: 1 for load in loads}
    with pytest.raises(ValueError, match="at most 256 fit"):
        writer.write_apart([*most, logs_of(5, 5, rows=1, seed=-1)])


def test_it_gives_up_after_the_attempts_allowed(database: Connection) -> None:
    name = database.endpoint.database
    prepare_database(database, name, TABLES, CHAIN, 1337)
    full = DiskFull(detail="no space left", clickhouse_code=243)
    waits: list[float] = []
    writer = Writer(
        Faulty(database, [("before", full)] * 99),  # type: ignore[arg-type]
        name,
        TABLES,
        CHAIN.partition_blocks,
        settings=WriterSettings(attempts_max=5, backoff_seconds=1.0, backoff_seconds_max=3.0),
        sleep=waits.append,
        jitter=lambda: 1.0,
    )
    with pytest.raises(WriteAbandoned) as caught:
        writer.write([logs_of(0, 9)])
    assert waits == [1.0, 2.0, 3.0, 3.0]
    assert "HR-4003" in caught.value.why_text
    assert read_ledger(database, name) == []


def test_what_stays_wrong_is_not_tried_again(database: Connection) -> None:
    name = database.endpoint.database
    writer = writer_to(database, name)
    segment = logs_of(0, 9)
    lacking = dict(segment.logs.columns)
    del lacking["topic3"]
    broken = replace(segment, logs=ColumnBlock("logs", segment.logs.rows, lacking))
    with pytest.raises(ColumnsMismatch, match="HR-4016"):
        writer.write([broken])
    strange = replace(segment, logs=ColumnBlock("pears", 1, {}))
    with pytest.raises(ColumnsMismatch, match="pears"):
        writer.write([strange])
    database.execute(f"DROP TABLE {name}.logs_open SYNC")
    with pytest.raises(UnknownTable):
        writer.write([segment])
    assert read_ledger(database, name) == []


def test_segments_that_do_not_belong_together_are_refused(database: Connection) -> None:
    writer = writer_to(database, database.endpoint.database)
    for segments in (
        [logs_of(0, 9), blocks_of(10, 19)],
        [logs_of(0, 9), logs_of(10, 10)],
        [logs_of(90, 99), logs_of(100, 109)],
        [logs_of(95, 104)],
    ):
        with pytest.raises(ValueError, match="one stream, lane and partition"):
            writer.write(segments)


def named(segment: Segment, content_version: str) -> Segment:
    return replace(segment, name=replace(segment.name, content_version=content_version))


def test_a_load_of_two_contents_says_so_segment_by_segment(database: Connection) -> None:
    name = database.endpoint.database
    writer = writer_to(database, name)
    segments = [named(logs_of(0, 9), "a"), named(logs_of(10, 19), "b"), named(logs_of(20, 29), "a")]
    load = writer.write(segments)
    rows = read_ledger(database, name)
    assert {row.load_id for row in rows} == {load.load_id}
    assert [(row.from_block, row.content_version) for row in rows] == [
        (0, "a"),
        (10, "b"),
        (20, "a"),
    ]
    assert durable_names(database, name, CHAIN, 1337, ()) == {each.name for each in segments}


def test_a_load_never_holds_a_block_twice(database: Connection) -> None:
    name = database.endpoint.database
    writer = writer_to(database, name)
    for segments in (
        [named(logs_of(0, 9), "a"), named(logs_of(0, 9), "b")],
        [logs_of(0, 9), logs_of(10, 19), logs_of(0, 9, seed=1)],
        [logs_of(10, 19), logs_of(5, 14)],
    ):
        with pytest.raises(ValueError, match="a load holds a block once"):
            writer.write(segments)
    assert read_ledger(database, name) == []
    branches = [logs_of(7, 7), logs_of(7, 7, seed=1)]
    assert len({load.load_id for load in writer.write_apart(branches)}) == 2


def test_errors_of_a_query_keep_their_class(database: Connection) -> None:
    with pytest.raises(QueryRefused):
        database.execute("SELEC 1")


def test_the_server_is_killed_in_the_middle_of_inserts_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        endpoint = server.endpoint()
        with Connection(endpoint, connect_timeout_seconds=2.0) as connection:
            # On a slow machine it takes a while until the server is back.
            settings = WriterSettings(attempts_max=100)
            writer = writer_to(connection, "local", sleep=time.sleep, settings=settings)
            stop = threading.Event()
            kills = 0

            def killer() -> None:
                nonlocal kills
                for pause in (0.15, 0.4, 0.25):
                    if stop.wait(pause):
                        return
                    # It may still be away from the last time.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(server.pid, signal.SIGKILL)
                        kills += 1
                    if stop.wait(1.5):
                        return

            thread = threading.Thread(target=killer)
            thread.start()
            loads = []
            first = 0
            try:
                while thread.is_alive() or first < 100:
                    batch = [logs_of(b, b + 9, rows=2000) for b in range(first, first + 30, 10)]
                    if first // 100 != (first + 29) // 100:
                        batch = batch[:1]
                    loads.append(writer.write(batch))
                    first = batch[-1].name.to_block + 1
            finally:
                stop.set()
                thread.join()
            assert kills >= 1
            assert any(load.attempts > 1 for load in loads)
            _check_all(server.endpoint(), loads)


def _check_all(endpoint: Endpoint, loads: list[Any]) -> None:
    """Every acknowledged load is whole, in the ledger and in the table."""
    logs = next(table for table in TABLES if table.name == "logs")
    with Connection(endpoint) as connection:
        stored = {row.load_id for row in read_ledger(connection, "local")}
        for load in loads:
            assert load.load_id in stored
            where = f"load_id = {load.load_id}"
            rows, checksum = stored_manifest(connection, "local.logs_open", logs, where)
            assert rows == load.rows
            assert checksum == sum(row.checksums[0] for row in load.ledger) % 2**64
