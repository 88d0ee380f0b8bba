"""A segment is asked for again only when nobody is about to bring it."""

from __future__ import annotations

import pytest

from infra.roles.in_flight import InFlight, Position
from infra.roles.segment_requests import ATTEMPTS_MAX, SegmentRequests
from schemas.chains import load_chains
from schemas.codec import decode_segment_wanted
from schemas.errors_canon import CoreLoadMissing
from schemas.topics import TOPICS
from sinks.canon_row import Missing

FACTS = load_chains()["local"].resized(10, 100)
PARTITIONS = {topic.name: topic.partitions(4) for topic in TOPICS}
EVENTS = Missing("events", 20, 29, None)
"""Segment 2 of chain 1: partition 3."""


class Brokers:
    def __init__(self) -> None:
        self.ends: dict[tuple[str, int], int] = {}
        self.read: dict[Position, int] = {}

    def end_of(self, topic: str, partition: int) -> int:
        return self.ends.get((topic, partition), 0)

    def committed(self, position: Position) -> int:
        return self.read.get(position, 0)


def in_flight(brokers: Brokers) -> InFlight:
    return InFlight(FACTS, 1, "h.", PARTITIONS, brokers.end_of, brokers.committed)


def test_every_group_on_the_way_must_have_read_what_was_there() -> None:
    brokers = Brokers()
    brokers.ends["raw.logs.history", 3] = 5
    followed = in_flight(brokers)
    followed.add(EVENTS)
    assert followed.take_lost() == []
    # More comes in, which does not matter: only what was there when it was asked for.
    brokers.ends["raw.logs.history", 3] = 9
    brokers.read["h.process.history", "raw.logs.history", 3] = 5
    brokers.ends["events.history", 3] = 4
    assert followed.take_lost() == []
    brokers.read["h.sink.history", "events.history", 3] = 3
    assert followed.take_lost() == []
    brokers.read["h.sink.history", "events.history", 3] = 4

    assert followed.take_lost() == [EVENTS]
    assert followed.take_lost() == []


def test_what_became_visible_is_not_lost() -> None:
    brokers = Brokers()
    brokers.ends["raw.blocks.head", 3] = 1
    followed = in_flight(brokers)
    followed.add(Missing("blocks", 25, 25, b"\1" * 32))
    assert followed.take_lost() == []
    followed.forget_up_to(25)
    brokers.read["h.sink.head", "raw.blocks.head", 3] = 1

    assert followed.take_lost() == []


def test_a_lost_segment_is_asked_for_a_few_times_and_then_halts() -> None:
    requests = SegmentRequests(1, "7.ab", in_flight(Brokers()))
    ids = []
    for _ in range(ATTEMPTS_MAX):
        requests.want(EVENTS)
        (envelope,) = requests.take(19)
        wanted = decode_segment_wanted(envelope.value)
        assert (wanted.from_block, wanted.to_block, wanted.streams) == (20, 29, ("events",))
        ids.append(wanted.request_id)
    assert len(set(ids)) == ATTEMPTS_MAX
    requests.want(EVENTS)

    with pytest.raises(CoreLoadMissing):
        requests.take(19)


def test_attempts_are_forgotten_once_the_block_is_visible() -> None:
    requests = SegmentRequests(1, "7.ab", in_flight(Brokers()))
    for _ in range(3 * ATTEMPTS_MAX):
        requests.want(EVENTS)
        assert len(requests.take(19)) == 1
        assert requests.take(29) == []
