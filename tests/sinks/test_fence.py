"""A publisher that lives on while another one claims: nothing visible goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.errors_sinks import ClickHouseUnreachable
from sinks.canon_row import Change, PublisherSettings
from sinks.canon_table import append_reorg
from sinks.connection import Connection, Endpoint
from tests.sinks.rig import Rig, prepare
from tests.sinks.small_chain import SmallChain, problem_of, read_state

NEWEST, FENCE, LEDGER = "ORDER BY generation DESC", ".canon", "ORDER BY inserted_at"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Between(Connection):
    """Does something once, right after the first statement that names `where`."""

    where = ""
    act: Callable[[], None] | None = None

    def execute(self, sql: str, *args: Any, **options: Any) -> Any:
        found = super().execute(sql, *args, **options)
        self._done(sql)
        return found

    def insert_rows(self, table: str, *args: Any, **options: Any) -> None:
        super().insert_rows(table, *args, **options)
        self._done(f"INSERT {table}")

    def _done(self, what: str) -> None:
        act = self.act
        if act is not None and self.where in what:
            self.act = None
            act()


@contextmanager
def claimed(endpoint: Endpoint) -> Iterator[tuple[SmallChain, Rig, Connection]]:
    """A publisher that shows a small chain and its head, and looks for no later claim."""
    prepare(endpoint)
    chain = SmallChain(2, 20)
    unaware = PublisherSettings(coalesce_seconds=0.0, check_seconds=1e12)
    with Rig(endpoint, chain, 1, settings=unaware) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.grow(6)
        rig.publisher.run_once()
        yield chain, rig, reader


def follower(endpoint: Endpoint, chain: SmallChain, where: str, act: Callable[[], None]) -> Rig:
    """Another publisher; `act` happens in the midst of its claim."""
    rig = Rig(endpoint, chain, 2, connect=Between)
    connection = rig.connections[0]
    assert isinstance(connection, Between)
    connection.where, connection.act = where, act
    return rig


def reorgs_of(rig: Rig) -> list[Change]:
    """How a publisher has replaced visible blocks."""
    return [change for change in rig.changes if change.reorg is not None]


@pytest.mark.parametrize("where", [NEWEST, f"INSERT {FENCE}"])
@pytest.mark.parametrize("back", [0, 3])
def test_a_row_that_is_written_during_a_claim_stays_visible(
    endpoint: Endpoint, where: str, back: int
) -> None:
    with claimed(endpoint) as (chain, stale, reader):

        def write() -> None:
            stale.grow(4, back=back)
            stale.publisher.run_once()

        where = where.replace(FENCE, f"{endpoint.database}{FENCE}")
        with follower(endpoint, chain, where, write) as fresh:
            row = fresh.claim()
            left = stale.shown()
            assert row is not None
            assert (row.generation, row.seq) == (left.generation + 1, 1)
            assert (row.head, row.loads) == (chain.head, left.loads)
            assert problem_of(chain, read_state(reader)) == ""
            told = reader.execute("SELECT generation, seq FROM reorgs")
            assert told == ([(left.generation, left.seq)] if back else [])
            fresh.follow(chain.snapshot_from(None))
            fresh.grow(2, back=1)
            fresh.publisher.run_once()
            assert read_state(reader)[0] == chain.head.hash
            assert problem_of(chain, read_state(reader)) == ""


def test_a_reorg_that_is_written_behind_the_fence_is_forgotten(endpoint: Endpoint) -> None:
    sql = "SELECT generation, seq FROM reorgs ORDER BY ALL"
    with claimed(endpoint) as (chain, stale, reader):
        stale.grow(2, back=3)
        stale.publisher.run_once()
        told = reader.execute(sql)
        (late,) = reorgs_of(stale)
        with Rig(endpoint, chain, 2) as fresh:
            fresh.claim()
            fresh.follow(chain.snapshot_from(None))
            fresh.grow(1, back=2)
            fresh.publisher.run_once()
            (own,) = reorgs_of(fresh)
            told.append((own.row.generation, own.row.seq))
            hidden = replace(late.row, seq=late.row.seq + 1)
            assert late.reorg is not None
            append_reorg(reader, endpoint.database, hidden, late.reorg, NOW)
            assert len(reader.execute(sql)) == 3
            fresh.publisher._checked_at = 0.0
            fresh.publisher.run_once()
            assert reader.execute(sql) == told


def test_a_claim_that_failed_behind_its_fence_is_made_again(endpoint: Endpoint) -> None:
    def fail() -> None:
        raise ClickHouseUnreachable(address="here", detail="gone")

    with claimed(endpoint) as (chain, stale, reader):
        before = stale.shown()
        with follower(endpoint, chain, LEDGER, fail) as fresh:
            ours = before.generation + 1
            with pytest.raises(ClickHouseUnreachable):
                fresh.publisher.claim(ours)
            fresh.publisher.claim(ours)
            row = fresh.shown()
            assert (row.generation, row.seq) == (ours, 1)
            assert (row.head, row.loads) == (before.head, before.loads)
            assert problem_of(chain, read_state(reader)) == ""
