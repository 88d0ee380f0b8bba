"""Many visible loads in a real ClickHouse in, fewer out, with the same rows in every view."""

from __future__ import annotations

import pytest

from schemas.errors_canon import FoldMismatch
from sinks.connection import Connection, Endpoint
from sinks.fold_plan import plan_folds
from sinks.publisher import Publisher
from tests.sinks.rig import Rig, prepare
from tests.sinks.small_chain import VERSIONS, SmallChain, problem_of, read_state


def visible_loads(publisher: Publisher) -> int:
    row = publisher.visible()
    assert row is not None
    return len(row.loads)


def test_final_head_blocks_become_their_grid_segments(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(11, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.write_history()
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
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.write_history(batch=1)
        rig.publisher.run_once()
        before = read_state(reader)
        assert visible_loads(rig.publisher) == 3 * 24
        rig.compactor.run_once()
        assert visible_loads(rig.publisher) == 3 * 3
        assert read_state(reader) == before
        assert problem_of(chain, before) == ""


def test_blocks_that_were_proven_differently_are_folded_apart(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings were changed amid a segment; that one stays as it is."""
    prepare(endpoint)
    chain = SmallChain(15, 20)
    monkeypatch.setattr("tests.sinks.rig.VERSIONS", dict.fromkeys(VERSIONS))
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.write_history()
        rig.grow(12)
        monkeypatch.setattr(
            "tests.sinks.small_chain.VERSIONS", {stream: f"{stream}2" for stream in VERSIONS}
        )
        rig.grow(13)
        rig.finalize(0)
        rig.publisher.run_once()
        before = read_state(reader)
        assert visible_loads(rig.publisher) == 3 * (2 + 25)
        folded = rig.compactor.run_once()
        apart = {tuple(segment[0] for segment in done.fold.segments) for done in folded}
        assert apart == {(20, 25), (35,), (40,)}, "40 begins a partition"
        assert visible_loads(rig.publisher) == 3 * (2 + 1 + 5 + 1 + 1)
        assert read_state(reader) == before
        assert problem_of(chain, before) == ""
        rows = reader.execute(
            "SELECT content_version, min(from_block), max(to_block) FROM ledger "
            "WHERE stream = 'logs' AND lane = 'history' AND from_block >= 20 GROUP BY 1 ORDER BY 1"
        )
        assert rows == [("logs2", 35, 44), ("vl", 20, 29)]


def test_a_copy_that_lacks_rows_is_refused(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(13, 20)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.write_history()
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
        rig.claim()
        rig.follow(chain.snapshot_from(None))
        rig.write_history()
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
            assert [done.fold for done in rig.compactor.apply(fold)] == [fold]
            assert read_state(reader) == before
