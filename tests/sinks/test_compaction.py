"""Many visible loads in a real ClickHouse in, fewer out, with the same rows in every view."""

from __future__ import annotations

import pytest

from schemas.errors_canon import FoldMismatch
from sinks.connection import Connection, Endpoint
from sinks.fold_plan import FoldSettings, plan_folds
from sinks.publisher import Publisher
from tests.sinks.rig import Rig, prepare, prove_as, show_any_version
from tests.sinks.small_chain import STREAMS, SmallChain, problem_of, read_state


def visible_loads(publisher: Publisher) -> int:
    row = publisher.visible()
    assert row is not None
    return len(row.loads)


def test_final_head_blocks_become_their_grid_segments(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(11, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.grow(3)
        rig.grow(12, back=2)
        rig.finalize(1)
        rig.publisher.run_once()
        before = read_state(reader)
        assert before[0] == chain.head.hash
        assert visible_loads(rig.publisher) == 3 * (2 + 13)
        folded = rig.compactor.run_once()
        assert {fold.fold.stream for fold in folded} == {"blocks", "logs", "events"}
        assert all(fold.swapped for fold in folded)
        assert [segment[:2] for segment in folded[0].fold.segments] == [(20, 24), (25, 29)]
        assert read_state(reader) == before
        assert problem_of(chain, before) == ""
        assert visible_loads(rig.publisher) == 3 * (2 + 1 + 3)
        assert rig.compactor.run_once() == []
        with Rig(endpoint, chain, 2) as again:
            row = again.claim()
            assert row is not None
            assert row.loads == rig.shown().loads
            assert read_state(reader) == before


def test_small_history_loads_are_folded_when_there_are_many(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(12, 120)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin(batch=1)
        rig.publisher.run_once()
        before = read_state(reader)
        assert visible_loads(rig.publisher) == 3 * 24
        rig.compactor.run_once()
        assert visible_loads(rig.publisher) == 3 * 3
        assert read_state(reader) == before
        assert problem_of(chain, before) == ""


def ledger_of_folds(reader: Connection, from_block: int) -> list[tuple[int, int, str]]:
    """(first, last block, content version) of what folds hold of the logs."""
    rows = reader.execute(
        "SELECT from_block, to_block, content_version FROM ledger WHERE stream = 'logs' "
        "AND lane = 'history' AND from_block >= %(from_block)s ORDER BY from_block",
        {"from_block": from_block},
    )
    return [(first, last, version) for first, last, version in rows]


def test_blocks_that_were_proven_differently_are_folded_together(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings were changed amid a segment; how each block was proven stays known."""
    prepare(endpoint)
    chain = SmallChain(15, 20)
    show_any_version(monkeypatch)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.grow(12)
        prove_as(monkeypatch, "2")
        rig.grow(13)
        rig.finalize(0)
        rig.publisher.run_once()
        before = read_state(reader)
        assert visible_loads(rig.publisher) == 3 * (2 + 25)
        assert all(fold.swapped for fold in rig.compactor.run_once())
        assert visible_loads(rig.publisher) == 3 * (2 + 1 + 1), "40 begins a partition"
        assert read_state(reader) == before
        assert problem_of(chain, before) == ""
        assert ledger_of_folds(reader, 20) == [
            (20, 24, "vl"),
            (25, 29, "vl"),
            (30, 31, "vl"),
            (32, 34, "logs2"),
            (35, 39, "logs2"),
            (40, 44, "logs2"),
        ]
        assert rig.compactor.run_once() == []
        with Rig(endpoint, chain, 2) as again:
            row = again.claim()
            assert row is not None
            assert row.loads == rig.shown().loads
            again.write_history(30, 34, batch=1)
            again.publisher.run_once()
            assert again.compactor.run_once() == []
            assert [sealed.partition for sealed in again.sealer.run_once()] == [0]
            assert read_state(reader) == before


def test_two_ingesters_that_prove_differently_leave_no_load_behind(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now the one was faster, now the other."""
    prepare(endpoint)
    chain = SmallChain(16, 40)
    show_any_version(monkeypatch)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        faster = "abbab baaab".replace(" ", "")
        for ingester in faster:
            prove_as(monkeypatch, f".{ingester}")
            rig.grow(1)
        rig.finalize(0)
        rig.publisher.run_once()
        before = visible_loads(rig.publisher)
        assert {fold.swapped for fold in rig.compactor.run_once()} == {True}
        assert visible_loads(rig.publisher) == before - 3 * (len(faster) - 1)
        assert problem_of(chain, read_state(reader)) == ""
        told = "".join(
            version.removeprefix("logs.") * (last - first + 1)
            for first, last, version in ledger_of_folds(reader, 40)
        )
        assert told == faster


def test_a_batch_of_two_contents_is_folded_with_its_neighbours(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load may hold segments that were proven differently."""
    prepare(endpoint)
    chain = SmallChain(17, 40)
    show_any_version(monkeypatch)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        segments = [chain.history[at : at + 5] for at in range(0, 40, 5)]
        for stream in STREAMS:
            for at in range(0, 8, 2):
                rig.write(stream, segments[at : at + 2], "history")
        reader.execute(
            "ALTER TABLE ledger UPDATE content_version = 'other' WHERE from_block % 10 = 5 "
            "SETTINGS mutations_sync = 2"
        )
        with Rig(endpoint, chain, 3) as again:
            again.compactor._settings = FoldSettings(loads_max=1)
            again.claim()
            before = read_state(reader)
            assert problem_of(chain, before) == ""
            assert visible_loads(again.publisher) == 3 * 4
            again.compactor.run_once()
            assert visible_loads(again.publisher) == 3
            assert read_state(reader) == before
        found = reader.execute(
            "SELECT groupArray(content_version) FROM (SELECT content_version FROM loads "
            "WHERE is_visible AND stream = 'logs' ORDER BY from_block)"
        )
        assert found == [(["vl", "other"] * 4,)]


def test_a_copy_that_lacks_rows_is_refused(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(13, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        made = rig.grow(5)
        rig.finalize(0)
        rig.publisher.run_once()
        before = rig.shown()
        folds = rig.publisher.change(lambda canon: plan_folds(canon, rig.compactor._settings))
        assert len(folds) == 3
        reader.execute(
            "DELETE FROM blocks_open WHERE block_number = %(number)s",
            {"number": made[2].number},
            settings={"lightweight_deletes_sync": 2},
        )
        with pytest.raises(FoldMismatch) as caught:
            rig.compactor.run_once()
        assert caught.value.data["table"] == "blocks"
        assert rig.shown() == before


def test_history_that_came_meanwhile_counts_once(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(14, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.grow(10)
        rig.finalize(0)
        rig.publisher.run_once()
        folds = rig.publisher.change(lambda canon: plan_folds(canon, rig.compactor._settings))
        rig.write_history(20, 29, batch=1)
        rig.publisher.run_once()
        assert visible_loads(rig.publisher) == 3 * 4, "history replaced the head blocks"
        before = read_state(reader)
        assert problem_of(chain, before) == ""
        for fold in folds:
            rig.compactor.apply(fold)
            assert read_state(reader) == before
