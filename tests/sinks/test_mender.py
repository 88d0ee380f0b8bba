"""Rows lost, doubled or changed in ClickHouse in, views that hold the truth again out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from schemas.errors_replay import CanonMoved, ReplayOtherChain, SealedUnnamed
from sinks.canon_row import CanonRow
from sinks.canon_table import append_canon, newest_generation, read_canon
from sinks.connection import Connection, Endpoint
from sinks.ledger import append_ledger, read_ledger
from sinks.mender import Damage, Mender
from sinks.sealed_parts import sealed_parts
from tests.sinks.rig import Rig, prepare, prove_as, show_any_version
from tests.sinks.small_chain import (
    FACTS,
    STREAMS,
    TABLES,
    SmallChain,
    problem_of,
    read_state,
)

SIZE = FACTS.segment_blocks
LOST = "DELETE WHERE block_number BETWEEN 0 AND 59"


@dataclass
class Damaged:
    """A filled database, what reads it, and the chain that it should show."""

    endpoint: Endpoint
    reader: Connection
    chain: SmallChain
    mender: Mender

    def shown(self) -> CanonRow:
        row = read_canon(self.reader, self.endpoint.database)
        assert row is not None
        return row

    def run(self, sql: str) -> None:
        self.reader.execute(f"ALTER TABLE {sql} SETTINGS mutations_sync = 2")

    def load_again(self, starts: list[int]) -> datetime:
        """Grid segments once more, several of them in one load; when that began."""
        ((since,),) = self.reader.execute("SELECT now64(6, 'UTC')")
        blocks = self.chain.path(self.chain.head, 0)
        segments = [blocks[start : start + SIZE] for start in starts]
        with Rig(self.endpoint, self.chain, len(starts)) as rig:
            rig.publisher.generation = self.shown().generation
            by_partition: dict[int, list[list[object]]] = {}
            for segment in segments:
                part = FACTS.partition(segment[0].number)
                by_partition.setdefault(part, []).append(list(segment))
            for stream in STREAMS:
                for group in by_partition.values():
                    rig.write(stream, group, "history", notify=False)  # type: ignore[arg-type]
        found: datetime = since
        return found

    def replay(self, starts: list[int]) -> list[Damage]:
        """What `headrace replay` does; what it found."""
        since = self.load_again(starts)
        row, fresh = self.shown(), self.mender.fresh(since, starts)
        damages = self.mender.compare(row, starts, fresh)
        more = sorted(set(self.mender.needed(row, damages)) - set(starts))
        if more:
            self.load_again(more)
            fresh = self.mender.fresh(since, [*starts, *more])
        if damages:
            mended = self.mender.mend(row, damages, fresh)
            generation = newest_generation(self.reader, self.endpoint.database) + 1
            self.mender.show(self.shown(), mended, generation)
        return damages


@pytest.fixture
def damaged(endpoint: Endpoint) -> Iterator[Damaged]:
    prepare(endpoint)
    chain = SmallChain(41, 100)
    with Rig(endpoint, chain) as rig:
        rig.begin()
        rig.grow(3)
        rig.publisher.run_once()
        assert rig.shown().head == chain.head
    with Connection(endpoint) as reader:
        yield Damaged(endpoint, reader, chain, Mender(reader, endpoint.database, FACTS, TABLES))


def seal(damaged: Damaged) -> list[int]:
    with Rig(damaged.endpoint, damaged.chain, 7) as rig:
        rig.claim()
        return [sealed.partition for sealed in rig.sealer.run_once()]


def assert_true(damaged: Damaged) -> None:
    state = read_state(damaged.reader)
    assert state[0] == damaged.chain.head.hash
    assert problem_of(damaged.chain, state) == ""
    ((wrong,),) = damaged.reader.execute(
        "SELECT count() FROM transfers WHERE value - block_number > 10"
    )
    assert wrong == 0


def test_nothing_changes_where_nothing_is_wrong(damaged: Damaged) -> None:
    before = damaged.shown()
    assert damaged.replay([0, 5, 35, 40, 95]) == []
    assert damaged.shown() == before
    with Rig(damaged.endpoint, damaged.chain, 3) as rig:
        row = rig.claim()
        assert row is not None
        assert (row.loads, row.sealed) == (before.loads, before.sealed)
    assert_true(damaged)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("lost", [(), ("blocks", "logs", "transfers")], ids=["changed", "lost"])
def test_what_is_wrong_is_mended_by_one_canon_row(
    damaged: Damaged, lost: tuple[str, ...], sealed: bool
) -> None:
    suffix = "sealed" if sealed else "open"
    if sealed:
        assert seal(damaged) == [0, 1]
    damaged.run(f"transfers_{suffix} UPDATE value = value + 100 WHERE block_number IN (11, 13)")
    for table in lost:
        damaged.run(f"{table}_{suffix} {LOST}")
    found = damaged.replay(list(range(0, 60, SIZE)))
    assert {damage.stream for damage in found} >= {"events"}
    assert all((damage.load_id is None) == sealed for damage in found)
    assert damaged.shown().sealed == (() if lost or not sealed else (1,))
    assert_true(damaged)
    with Rig(damaged.endpoint, damaged.chain, 9) as rig:
        rig.claim()
        assert_true(damaged)
        rig.publisher.run_once()
        rig.compactor.run_once()
        assert_true(damaged)
        rig.sealer.run_once()
        assert rig.shown().sealed == (0, 1)
        assert_true(damaged)
    assert damaged.replay(list(range(0, 80, SIZE))) == []


@pytest.fixture
def sealed_by_parts(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Damaged]:
    """A partition whose last 15 blocks were sealed as they came; ten of them replaced others."""
    prepare(endpoint)
    chain = SmallChain(42, 25)
    show_any_version(monkeypatch)
    with Rig(endpoint, chain) as rig:
        rig.begin()
        rig.grow(12)
        prove_as(monkeypatch, "2")
        rig.grow(18, back=9)
        rig.finalize(0)
        rig.publisher.run_once()
        assert [sealed.partition for sealed in rig.sealer.run_once()] == [0]
    with Connection(endpoint) as reader:
        yield Damaged(endpoint, reader, chain, Mender(reader, endpoint.database, FACTS, TABLES))


def test_a_partition_that_was_sealed_by_parts_is_opened(sealed_by_parts: Damaged) -> None:
    damaged = sealed_by_parts
    damaged.run("transfers_sealed UPDATE value = value + 100 WHERE block_number BETWEEN 0 AND 19")
    assert [damage.partition for damage in damaged.replay([0, 5, 10, 15])] == [0]
    assert damaged.shown().sealed == ()
    assert_true(damaged)
    ((held,),) = damaged.reader.execute(
        "SELECT groupArray((from_block, to_block, content_version)) FROM (SELECT * FROM loads "
        "WHERE is_visible AND stream = 'logs' AND from_block BETWEEN 25 AND 39 ORDER BY from_block)"
    )
    assert held == [
        *((number, number, "vl") for number in range(25, 28)),
        *((number, number, "logs2") for number in range(28, 40)),
    ]
    with Rig(damaged.endpoint, damaged.chain, 9) as rig:
        rig.claim()
        assert [sealed.partition for sealed in rig.sealer.run_once()] == [0]
        assert_true(damaged)


def test_a_partition_that_lacks_more_than_came_again_stays_as_it_is(
    sealed_by_parts: Damaged,
) -> None:
    damaged = sealed_by_parts
    before = damaged.shown()
    damaged.run("transfers_sealed UPDATE value = value + 100 WHERE block_number < 10")
    damaged.run("blocks_sealed DELETE WHERE block_number = 32")
    with pytest.raises(SealedUnnamed) as raised:
        damaged.replay([0, 5])
    assert (raised.value.data["from_block"], raised.value.data["to_block"]) == (30, 34)
    assert damaged.shown() == before
    assert damaged.replay([0, 5, 30]) != []
    assert_true(damaged)


def test_rows_that_are_there_twice_are_mended(damaged: Damaged) -> None:
    damaged.reader.execute("INSERT INTO logs_open SELECT * FROM logs_open WHERE block_number < 20")
    found = damaged.replay([0, 5, 10, 15])
    assert {(damage.stream, damage.tables) for damage in found} == {("logs", ("logs",))}
    assert_true(damaged)


def test_another_chain_is_never_taken(damaged: Damaged) -> None:
    since = damaged.load_again([10])
    other = SmallChain(77, 100)
    with Rig(damaged.endpoint, other, 5) as rig:
        rig.publisher.generation = damaged.shown().generation
        for stream in STREAMS:
            rig.write(stream, [other.history[10:15]], "history", notify=False)
    fresh = damaged.mender.fresh(since, [10])
    with pytest.raises(ReplayOtherChain):
        damaged.mender.compare(damaged.shown(), [10], fresh)


def test_loads_that_were_swapped_meanwhile_are_left_alone(damaged: Damaged) -> None:
    damaged.run("transfers_open UPDATE value = 1000 WHERE block_number = 11")
    since = damaged.load_again(list(range(0, 15, SIZE)))
    row = damaged.shown()
    fresh = damaged.mender.fresh(since, list(range(0, 15, SIZE)))
    damages = damaged.mender.compare(row, [10], fresh)
    mended = damaged.mender.mend(row, damages, fresh)
    assert seal(damaged) == [0, 1]
    with pytest.raises(CanonMoved):
        damaged.mender.show(damaged.shown(), mended, row.generation + 5)


def test_what_a_newer_claim_would_hide_is_not_called_mended(damaged: Damaged) -> None:
    damaged.run("transfers_open UPDATE value = 1000 WHERE block_number = 11")
    starts = list(range(0, 15, SIZE))
    since = damaged.load_again(starts)
    row, fresh = damaged.shown(), damaged.mender.fresh(since, starts)
    mended = damaged.mender.mend(row, damaged.mender.compare(row, [10], fresh), fresh)
    newer = replace(row, generation=row.generation + 2, seq=0)
    append_canon(damaged.reader, damaged.endpoint.database, newer, datetime.now(UTC))

    for seen in (row, newer):
        with pytest.raises(CanonMoved):
            damaged.mender.show(seen, mended, row.generation + 1)


def test_what_is_sealed_names_its_ledger_rows(endpoint: Endpoint) -> None:
    """A segment of another fork that came later, and was refused, is not taken for it."""
    prepare(endpoint)
    chain = SmallChain(15, 40)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.publisher.run_once()
        assert rig.sealer.run_once()
        (row,) = read_ledger(reader, endpoint.database, stream="logs", from_block=10, to_block=14)
        stray = replace(row, last_hash=bytes(32), load_id=77)
        append_ledger(reader, endpoint.database, [stray])
        parts = sealed_parts(reader, endpoint.database, FACTS, "logs", 0)
        assert parts[10] == [row]
