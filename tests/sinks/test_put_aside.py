"""A chore that fails for good is put aside, named, and tried again; everything else goes on."""

from __future__ import annotations

from typing import Any, cast

import pytest

from schemas.errors import Permanent
from schemas.errors_canon import FoldMismatch, StalePublisher
from schemas.errors_sinks import QueryTimedOut
from sinks.connection import Connection, Endpoint
from sinks.put_aside import RETRY_SECONDS, PutAside, Task
from sinks.upkeep import Upkeep
from tests.sinks.rig import Clock, Rig, prepare
from tests.sinks.small_chain import STREAMS, SmallChain, counts

FOLD = Task("fold", frozenset({1, 2}), 20, 29)


class Aside:
    """A `PutAside`, and what surrounds it."""

    def __init__(self) -> None:
        self.now, self.visible = 0.0, frozenset({1, 2, 3})
        self.failed: list[tuple[Task, str]] = []
        self.tasks = PutAside(
            lambda: self.visible,
            on_failure=lambda task, error: self.failed.append((task, error.code)),
            clock=lambda: self.now,
        )

    def fail(self, error: Exception, task: Task = FOLD) -> None:
        with self.tasks.attempt(task):
            raise error


def mismatch() -> Permanent:
    return FoldMismatch(
        from_block=20,
        to_block=29,
        table="logs",
        rows=1,
        checksum=1,
        manifest_rows=2,
        manifest_checksum=2,
    )


def test_a_task_that_fails_for_good_is_aside_until_its_retry() -> None:
    aside = Aside()
    aside.fail(mismatch())
    assert aside.failed == [(FOLD, "HR-4505")]
    assert aside.tasks.holds(FOLD)
    assert aside.tasks.loads("fold") == {1, 2}
    assert aside.tasks.loads("seal") == set()
    aside.now = RETRY_SECONDS - 1
    aside.tasks.refresh()
    assert len(aside.tasks) == 1
    aside.now = RETRY_SECONDS
    aside.tasks.refresh()
    assert len(aside.tasks) == 0


def test_a_task_is_tried_at_once_when_its_loads_were_replaced() -> None:
    aside = Aside()
    aside.fail(mismatch())
    aside.visible = frozenset({1, 3})
    aside.tasks.refresh()
    assert not aside.tasks.holds(FOLD)


@pytest.mark.parametrize(
    "error",
    [
        StalePublisher(claimed=3, database="d", ours=2),
        QueryTimedOut(detail="too long", clickhouse_code=159),
        AssertionError("a fault of our own"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_failure_is_raised(error: Exception) -> None:
    aside = Aside()
    with pytest.raises(type(error)):
        aside.fail(error)
    assert len(aside.tasks) == 0


def upkeep_of(rig: Rig, clock: Clock) -> tuple[Upkeep, list[tuple[str, str]], list[Any]]:
    failed: list[tuple[str, str]] = []
    done: list[Any] = []
    aside = PutAside(
        rig.visible_loads,
        on_failure=lambda task, error: failed.append((task.chore, error.fix_text)),
        clock=clock,
    )
    upkeep = Upkeep(rig.compactor, rig.sealer, rig.sweeper, aside, on_done=done.append)
    return upkeep, failed, done


def lose_rows(reader: Connection, table: str, number: int) -> None:
    reader.execute(
        f"DELETE FROM {table} WHERE block_number = %(number)s",
        {"number": number},
        settings={"lightweight_deletes_sync": 2},
    )


def test_the_head_goes_on_over_a_fold_that_fails(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(13, 20)
    clock = Clock()
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        made = rig.grow(5)
        rig.finalize(0)
        rig.publisher.run_once()
        lose_rows(reader, "blocks_open", made[2].number)
        upkeep, failed, done = upkeep_of(rig, clock)

        upkeep.run_once()
        upkeep.run_once()

        first, last = made[0].number, made[-1].number
        assert [chore for chore, _ in failed] == ["fold"], "once, though there were two turns"
        assert f"headrace replay --from {first} --to {last}" in failed[0][1]
        assert {folded.fold.stream for folded in done if hasattr(folded, "fold")} == {
            "logs",
            "events",
        }
        rig.grow(5)
        rig.finalize(0)
        rig.publisher.run_once()
        assert rig.shown().head == chain.head
        done.clear()
        upkeep.run_once()
        assert {folded.fold.stream for folded in done if hasattr(folded, "fold")} == set(STREAMS)
        assert len(upkeep.aside) == 1
        clock.now += RETRY_SECONDS
        upkeep.run_once()
        assert len(failed) == 2, "tried again"


def test_one_damaged_partition_does_not_keep_the_others_open(endpoint: Endpoint) -> None:
    prepare(endpoint)
    chain = SmallChain(23, 130)
    with Rig(endpoint, chain) as rig, Connection(endpoint) as reader:
        rig.begin()
        rig.publisher.run_once()
        (first, *others) = rig.publisher.change(lambda canon: canon.seal_candidates())
        assert others
        size = rig.publisher.facts.partition_blocks
        part = chain.history[first * size : (first + 1) * size]
        number = next(ref.number for ref in part if counts(ref.hash)["logs"])
        lose_rows(reader, "logs_open", number)
        upkeep, failed, _ = upkeep_of(rig, Clock())

        upkeep.run_once()
        upkeep.run_once()

        assert [chore for chore, _ in failed] == ["seal"]
        replay = f"headrace replay --from {first * size} --to {(first + 1) * size - 1}"
        assert replay in failed[0][1]
        assert rig.shown().sealed == tuple(others)
        assert len(upkeep.aside) == 1


def test_a_sweep_that_fails_is_put_aside(endpoint: Endpoint) -> None:
    class Refused:
        calls = 0

        def run_once(self) -> None:
            self.calls += 1
            raise mismatch()

    prepare(endpoint)
    with Rig(endpoint, SmallChain(5, 20)) as rig:
        rig.begin()
        rig.publisher.run_once()
        sweeper, aside = Refused(), PutAside(rig.visible_loads)
        upkeep = Upkeep(rig.compactor, rig.sealer, cast("Any", sweeper), aside)
        upkeep.run_once()
        upkeep.run_once()
    assert sweeper.calls == 1
    assert len(aside) == 1
