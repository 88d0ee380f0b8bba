"""Failures and clocks in, no canon row lost out: the publisher's shell without ClickHouse."""

from __future__ import annotations

from typing import cast

import pytest

import sinks.publisher as shell
from schemas.errors_canon import StalePublisher
from schemas.errors_sinks import ClickHouseUnreachable
from schemas.segments import ForkUpdate, Lane
from sinks.canon import Canon
from sinks.canon_row import CanonRow, PublisherSettings, Rewound
from sinks.connection import Connection
from sinks.publisher import Publisher
from tests.sinks.canon_ledger import FACTS, STREAMS, VERSIONS, ledger, ref


class Fake:
    """A table `canon` that can be out of reach, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[CanonRow] = []
        self.fails = False
        self.now = 1_700_000_000.0
        monkeypatch.setattr(shell, "append_canon", self.append)

    def value(self, _sql: str) -> int:
        return 2

    def append(self, _connection: object, _database: str, row: CanonRow, _at: object) -> None:
        if self.fails:
            raise ClickHouseUnreachable(address="here", detail="gone")
        self.rows.append(row)

    def publisher(self) -> Publisher:
        publisher = Publisher(
            cast("Connection", self),
            "db",
            FACTS,
            VERSIONS,
            0,
            settings=PublisherSettings(retry_seconds=0.0, check_seconds=1e12),
            clock=lambda: self.now,
        )
        publisher._canon = Canon(FACTS, VERSIONS, 0, 1)
        publisher._checked_at = self.now
        anchor = ref(4)
        publisher.apply_fork(ForkUpdate(1, ref(5), None, anchor, (), (anchor, ref(5)), 0))
        return publisher


def write(publisher: Publisher, load_id: int, first: int, last: int) -> None:
    lane: Lane = "history" if first != last else "head"
    for offset, stream in enumerate(STREAMS):
        publisher.notify([ledger(stream, load_id + offset, first, ref(last), lane)])


def test_row_that_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    publisher = fake.publisher()
    write(publisher, 10, 0, 4)
    fake.fails = True
    with pytest.raises(ClickHouseUnreachable):
        publisher.run_once()
    fake.fails, fake.now = False, fake.now + 1
    publisher.run_once()
    assert [row.head for row in fake.rows] == [ref(4)]
    assert publisher.visible() == fake.rows[-1]


def test_clock_that_goes_back_does_not_hold_up_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    publisher = fake.publisher()
    write(publisher, 10, 0, 4)
    publisher.run_once()
    fake.now -= 3600
    write(publisher, 20, 5, 5)
    publisher.run_once()
    assert [row.head for row in fake.rows] == [ref(4), ref(5)]


def test_whoever_has_seen_a_later_claim_writes_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(monkeypatch)
    publisher = fake.publisher()
    publisher.generation = 1
    write(publisher, 10, 0, 4)
    with pytest.raises(StalePublisher):
        publisher.check_claim()
    publisher.start()
    publisher.stop()
    with pytest.raises(StalePublisher):
        publisher.change(lambda canon: canon.lower_floor(0))
    assert isinstance(publisher.failure, StalePublisher)
    assert fake.rows == []


def test_load_that_reaches_above_a_rewind_counts_for_none_of_its_segments() -> None:
    canon = Canon(FACTS, VERSIONS, 0, 3, rewinds=[Rewound(2, 4)])
    for offset, stream in enumerate(STREAMS):
        canon.add(
            [
                ledger(stream, 10 + offset, 0, ref(4), "history"),
                ledger(stream, 10 + offset, 5, ref(9), "history"),
            ]
        )
    assert canon.step(0) is None
