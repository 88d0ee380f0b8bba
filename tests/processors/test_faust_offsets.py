"""Acknowledgements in order; offsets that are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from faust.types import TP

from processors.faust_offsets import Acks, Offsets, read_all
from schemas.errors_process import MessagesSkipped, OffsetsLost, WorkerFailed
from schemas.segments import Envelope

PLACE = TP("raw.logs.history", 0)


class Message:
    def __init__(self, offset: int, generation: int, tp: TP) -> None:
        self.tp, self.offset, self.generation_id = tp, offset, generation


class Event:
    """What `Acks` and `Offsets` see of Faust's events."""

    def __init__(self, app: App, offset: int, generation: int = 1, tp: TP = PLACE) -> None:
        self.message = Message(offset, generation, tp)
        self._app = app

    def ack(self) -> bool:
        self._app.acked.append((self.message.tp.partition, self.message.offset))
        return True


class Kept:
    """A message that lies in a topic."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.envelope = Envelope("raw.heads", b"", b"", {})


class Held:
    """A reader of messages that lie at some offsets."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def bounds(self, partition: int = 0) -> tuple[int, int]:
        return min(self._offsets), max(self._offsets) + 1

    def read(self, partition: int, from_offset: int, to_offset: int) -> Iterator[Kept]:
        return (Kept(one) for one in self._offsets if from_offset <= one < to_offset)


class App:
    """An app whose consumer has committed and kept what a test says."""

    def __init__(self, committed: int | None = None, earliest: int = 0) -> None:
        self.consumer = self
        self.consumer_generation_id = 1
        self.acked: list[tuple[int, int]] = []
        self._committed_offset = {PLACE: committed}
        self._earliest = earliest
        self.asked = 0
        self.held: list[int] = []

    def open(self, topic: str) -> Held:
        assert topic == PLACE.topic
        return Held(self.held)

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        self.asked += 1
        return dict.fromkeys(tps, self._earliest)


def any_app(committed: int | None = None, earliest: int = 0) -> Any:
    return App(committed, earliest)


def any_event(app: Any, offset: int, **more: Any) -> Any:
    return Event(app, offset, **more)


def test_events_are_acknowledged_in_order_whatever_is_done_first() -> None:
    app = any_app()
    acks = Acks(app)
    waiting = [acks.begin(any_event(app, n)) for n in range(4)]
    acks.end(waiting[2])
    acks.end(waiting[1])
    assert app.acked == []

    acks.end(waiting[0])
    assert app.acked == [(0, 0), (0, 1), (0, 2)]

    acks.end(waiting[3])
    assert app.acked[-1] == (0, 3)


def test_partitions_do_not_wait_for_each_other() -> None:
    app = any_app()
    acks = Acks(app)
    acks.begin(any_event(app, 5))
    acks.end(acks.begin(any_event(app, 9, tp=TP(PLACE.topic, 1))))

    assert app.acked == [(1, 9)]


def test_an_event_of_an_earlier_assignment_is_not_acknowledged() -> None:
    """It was read again: to acknowledge it now could commit past what is under way."""
    app = any_app()
    acks = Acks(app)
    old = acks.begin(any_event(app, 7))
    app.consumer_generation_id = 2
    new = acks.begin(any_event(app, 7, generation=2))
    acks.end(old)
    assert app.acked == []

    acks.end(new)
    assert app.acked == [(0, 7)]


async def test_offsets_that_follow_each_other_ask_nobody() -> None:
    app = any_app(committed=3)
    offsets = Offsets(app, app.open, accept_lost=False)
    for offset in (3, 4, 5, 4, 5, 6):
        await offsets.check(any_event(app, offset))

    assert app.asked == 0


@pytest.mark.parametrize("committed", [3, 4])
async def test_a_jump_over_what_retention_dropped_is_a_halt(committed: int) -> None:
    app = any_app(committed, earliest=9)
    offsets = Offsets(app, app.open, accept_lost=False)
    with pytest.raises(OffsetsLost, match=f"partition 0: offsets {committed} to 8 are gone"):
        await offsets.check(any_event(app, 9))


async def test_a_jump_within_an_assignment_is_one_too() -> None:
    app = any_app(None, earliest=0)
    offsets = Offsets(app, app.open, accept_lost=False)
    await offsets.check(any_event(app, 20))
    app._earliest = 30
    with pytest.raises(OffsetsLost, match="offsets 21 to 29"):
        await offsets.check(any_event(app, 30))


async def test_a_gap_that_never_held_a_message_of_ours_is_none() -> None:
    """Markers of transactions, and compaction: the topic still begins where it did."""
    app = any_app(committed=3, earliest=0)
    offsets = Offsets(app, app.open, accept_lost=False)
    await offsets.check(any_event(app, 5))


async def test_what_is_accepted_is_passed_once() -> None:
    app = any_app(committed=3, earliest=9)
    offsets = Offsets(app, app.open, accept_lost=True)
    await offsets.check(any_event(app, 9))
    await offsets.check(any_event(app, 10))

    assert app.asked == 1


@pytest.mark.parametrize("committed", [3, None])
async def test_a_gap_that_holds_messages_ends_the_worker(committed: int | None) -> None:
    """At the beginning and in the middle: nothing behind it was taken up."""
    app = any_app(committed, earliest=3)
    app.held = [3, 4, 5, 6, 7]
    offsets = Offsets(app, app.open, accept_lost=True)
    with pytest.raises(MessagesSkipped, match="offset 4 came where 3 was next"):
        await offsets.check(any_event(app, 4))

    assert await offsets.check(any_event(app, 5))
    with pytest.raises(MessagesSkipped, match="offset 7 came where 6 was next"):
        await offsets.check(any_event(app, 7))


async def test_an_event_of_an_earlier_assignment_is_not_taken() -> None:
    app = any_app(committed=3)
    app.consumer_generation_id = 2
    offsets = Offsets(app, app.open, accept_lost=False)

    assert not await offsets.check(any_event(app, 9))
    assert await offsets.check(any_event(app, 3, generation=2))


def test_all_of_a_range_is_read_or_it_is_said() -> None:
    held = Held([4, 5, 6, 9])
    assert [one.offset for one in read_all(held, 4, 7)] == [4, 5, 6]
    with pytest.raises(WorkerFailed, match="the messages from offset 7 on did not come"):
        read_all(held, 4, 9)
    with pytest.raises(WorkerFailed, match="the messages from offset 7 on did not come"):
        read_all(held, 7, 8)


async def test_a_new_assignment_begins_where_it_was_committed() -> None:
    app = any_app(committed=3)
    offsets = Offsets(app, app.open, accept_lost=False)
    await offsets.check(any_event(app, 3))
    app._committed_offset[PLACE] = 50
    app.consumer_generation_id = 2
    await offsets.check(any_event(app, 50, generation=2))

    assert app.asked == 0
