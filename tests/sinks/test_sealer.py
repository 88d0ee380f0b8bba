"""Partitions of a real ClickHouse sealed in, the same rows in every view and no byte copied out."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors_canon import SealMismatch
from sinks.connection import Connection, Endpoint
from tests.sinks.rig import QUERY_SECONDS_MAX, Clock, Rig, prepare
from tests.sinks.small_chain import STREAMS, SmallChain, counts, problem_of, read_state


def filled(rig: Rig, batch: int = 3) -> None:
    rig.begin(batch=batch)
    rig.publisher.run_once()


def test_clean_seal_copies_nothing(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(21, 100)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        filled(rig)
        before = read_state(reader)
        reader.execute("SYSTEM FLUSH LOGS")
        (sealed, other) = rig.sealer.run_once()
        assert (sealed.partition, sealed.copied) == (0, ())
        assert (other.partition, other.copied) == (1, ())
        assert rig.shown().sealed == (0, 1)
        assert read_state(reader) == before
        reader.execute("SYSTEM FLUSH LOGS")
        events = reader.execute(
            "SELECT event_type, count(), sum(size_in_bytes), "
            # Each part of one ALTER carries what the whole ALTER has written.
            "sum(ProfileEvents['WriteBufferFromFileDescriptorWriteBytes'] / parts) FROM ("
            "    SELECT *, count() OVER (PARTITION BY table, partition_id) AS parts"
            "    FROM system.part_log WHERE database = %(database)s AND endsWith(table, '_sealed')"
            ") GROUP BY event_type",
            {"database": endpoint.database},
        )
        ((kind, parts, size_bytes, written_bytes),) = events
        assert kind == "NewPart"
        assert parts > 0
        assert written_bytes <= 32 * parts, "no more than a marker file of 28 bytes a part"
        assert size_bytes > 20 * written_bytes
        paths = reader.execute(
            "SELECT path FROM system.parts WHERE active AND database = %(database)s "
            "AND endsWith(table, '_sealed')",
            {"database": endpoint.database},
        )
        links = [file.stat().st_nlink for (path,) in paths for file in Path(path).glob("*.bin")]
        assert links, "columns are files"
        assert min(links) > 1, "and these are the open table's own"
        rig.follow(chain.snapshot_from(None))
        rig.grow(3)
        rig.publisher.run_once()
        assert problem_of(chain, read_state(reader)) == ""


def test_zombies_and_orphans_are_left_out(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(22, 40)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        filled(rig)
        for _ in range(6):
            rig.grow(4)
            rig.grow(4, back=2)
        segment = chain.history[5:10]
        for stream in STREAMS:
            rig.write(stream, [segment], "history", with_ledger=False)
            rig.write(stream, [segment], "history")
        rig.finalize(1)
        rig.publisher.run_once()
        (first,) = rig.sealer.run_once()
        assert first.copied[:4] == ("blocks", "transactions", "logs", "transfers")
        assert problem_of(chain, read_state(reader)) == ""
        rig.grow(8)
        rig.finalize(1)
        rig.publisher.run_once()
        (second,) = rig.sealer.run_once()
        assert "blocks" in second.copied
        assert rig.shown().sealed == (0, 1)
        assert problem_of(chain, read_state(reader)) == ""


def test_rows_lost_stop_the_seal(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(23, 40)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        filled(rig)
        number = next(ref.number for ref in chain.history if counts(ref.hash)["logs"])
        reader.execute(
            "DELETE FROM logs_open WHERE block_number = %(number)s",
            {"number": number},
            settings={"lightweight_deletes_sync": 2},
        )
        with pytest.raises(SealMismatch) as caught:
            rig.sealer.run_once()
        assert caught.value.data["table"] == "logs"
        assert rig.shown().sealed == ()
        assert rig.publisher.change(lambda canon: canon.tilings["logs"].frozen) == set()


def test_open_part_is_dropped_only_after_the_longest_query(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain, clock, steady = SmallChain(24, 80), Clock(), Clock()
    with (
        Rig(endpoint, chain, clock=clock, steady=steady) as rig,
        Connection(endpoint) as reader,
    ):
        filled(rig)
        rig.sealer.run_once()
        assert rig.sweeper.run_once() == []
        steady.now += 2 * QUERY_SECONDS_MAX - 0.1
        clock.now += 3600.0
        assert rig.sweeper.run_once() == [], "a clock that is set forward ends no query"
        before = read_state(reader)
        steady.now += 0.2
        dropped = rig.sweeper.run_once()
        assert ("blocks", 0) in dropped
        assert ("blocks", 1) in dropped
        assert read_state(reader) == before
        assert reader.value("SELECT count() FROM blocks_open") == 0
        assert rig.sweeper.run_once() == []
        keys = reader.execute("SELECT generation, seq FROM canon ORDER BY generation, seq")
        assert keys[-1] == (rig.shown().generation, rig.shown().seq)
        assert len(keys) == 1, "what older rows list is gone"
        late = rig.write("blocks", [chain.history[:5]], "history", with_ledger=False)
        assert late
        assert rig.sweeper.run_once() == [], "whoever wrote it may want to read it"
        steady.now += 2 * QUERY_SECONDS_MAX + 0.1
        assert rig.sweeper.run_once() == [("blocks", 0), ("transactions", 0)]
        assert read_state(reader) == before


def test_partition_with_the_floor_inside_stays_open(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(25, 80)
    with Rig(endpoint, chain, floor=12) as rig:
        rig.begin()
        rig.publisher.run_once()
        assert rig.shown().floor == 12
        assert [sealed.partition for sealed in rig.sealer.run_once()] == [1]
        rig.publisher.lower_floor(0)
        assert rig.shown().floor == 0
        assert [sealed.partition for sealed in rig.sealer.run_once()] == [0]


def test_seal_that_was_cut_short_is_done_again(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(26, 40)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        filled(rig)
        before = read_state(reader)
        reader.execute("ALTER TABLE logs_sealed REPLACE PARTITION 0 FROM logs_open")
        reader.execute("CREATE TABLE blocks_staging AS blocks_open")
        with Rig(endpoint, chain, 2) as again:
            again.claim()
            assert read_state(reader) == before
            (sealed,) = again.sealer.run_once()
            assert sealed.copied == ()
            assert read_state(reader) == before
