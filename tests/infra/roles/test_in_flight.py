"""A segment is asked for again only when nobody is about to bring it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from structlog.testing import capture_logs

from infra.kafka.clients import consumer_config
from infra.roles import in_flight as in_flight_module
from infra.roles.in_flight import Brokers, InFlight, Position
from infra.roles.process_offsets import COORDINATOR_COMES
from infra.roles.segment_requests import ATTEMPTS_MAX, SegmentRequests
from infra.settings_cluster import KafkaSettings
from schemas.chains import load_chains
from schemas.codec import decode_segment_wanted
from schemas.errors_roles import SegmentNotBrought
from schemas.topics import TOPICS, topic_name
from sinks.canon_row import Missing
from tests.infra.roles.workers import until
from tests.patience import PATIENCE_SECONDS

FACTS = load_chains()["local"].resized(10, 100)
PARTITIONS = {topic.name: topic.partitions(4) for topic in TOPICS}
EVENTS = Missing("events", 20, 29, None)
"""Segment 2 of chain 1: partition 3."""


class Answers:
    def __init__(self) -> None:
        self.ends: dict[tuple[str, int], int] = {}
        self.read: dict[Position, int] = {}

    def end_of(self, position: Position) -> int | None:
        return self.ends.get(position[1:], 0)

    def committed(self, position: Position) -> int:
        return self.read.get(position, 0)


def in_flight(brokers: Answers) -> InFlight:
    return InFlight(FACTS, 1, "h.", PARTITIONS, brokers.end_of, brokers.committed)


def at_once(ask: Callable[[], None]) -> None:
    ask()


def test_every_group_on_the_way_must_have_read_what_was_there() -> None:
    brokers = Answers()
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
    brokers = Answers()
    brokers.ends["raw.blocks.head", 3] = 1
    followed = in_flight(brokers)
    followed.add(Missing("blocks", 25, 25, b"\1" * 32))
    assert followed.take_lost() == []
    followed.forget_up_to(25)
    brokers.read["h.sink.head", "raw.blocks.head", 3] = 1

    assert followed.take_lost() == []


def test_a_lost_segment_is_asked_for_a_few_times_and_then_halts() -> None:
    requests = SegmentRequests(1, "7.ab", in_flight(Answers()), at_once)
    ids = []
    with capture_logs() as said:
        for _ in range(ATTEMPTS_MAX):
            requests.want(EVENTS)
            (envelope,) = requests.take(19)
            wanted = decode_segment_wanted(envelope.value)
            assert (wanted.from_block, wanted.to_block, wanted.streams) == (20, 29, ("events",))
            ids.append(wanted.request_id)
    assert len(set(ids)) == ATTEMPTS_MAX
    warned = [(line["event"], line["code"]) for line in said]
    assert warned == [("segment_still_wanted", "HR-6315")] * (ATTEMPTS_MAX - 1)
    assert "headrace ingest" in said[0]["fix"]
    requests.want(EVENTS)

    with pytest.raises(SegmentNotBrought):
        requests.take(19)


def test_attempts_are_forgotten_once_the_block_is_visible() -> None:
    requests = SegmentRequests(1, "7.ab", in_flight(Answers()), at_once)
    for _ in range(3 * ATTEMPTS_MAX):
        requests.want(EVENTS)
        assert len(requests.take(19)) == 1
        assert requests.take(29) == []


def test_whoever_asks_for_requests_does_not_wait_for_the_brokers() -> None:
    """The publisher's main loop says that it lives: slow answers may not keep it from that."""
    may_answer, asked = threading.Event(), threading.Event()

    class Slow(Answers):
        def committed(self, position: Position) -> int:
            asked.set()
            assert may_answer.wait(PATIENCE_SECONDS)
            return super().committed(position)

    answered = threading.Event()

    def start(ask: Callable[[], None]) -> None:
        def run() -> None:
            ask()
            answered.set()

        threading.Thread(target=run, daemon=True).start()

    requests = SegmentRequests(1, "7.ab", in_flight(Slow()), start)
    requests.want(EVENTS)
    assert requests.take(19) == []
    assert asked.wait(PATIENCE_SECONDS)
    assert requests.take(19) == [], "one question at a time"
    may_answer.set()
    assert answered.wait(PATIENCE_SECONDS)

    assert len(requests.take(19)) == 1


def test_a_lost_segment_is_asked_for_though_another_is_followed_on() -> None:
    brokers = Answers()
    brokers.ends["raw.blocks.head", 3] = 1
    questions: list[Callable[[], None]] = []
    requests = SegmentRequests(1, "7.ab", in_flight(brokers), questions.append)
    requests.want(EVENTS)
    requests.want(Missing("blocks", 25, 25, b"\1" * 32))
    assert requests.take(19) == []
    questions.pop()()

    assert len(requests.take(19)) == 1
    assert len(questions) == 1, "the other is still on its way"


def test_a_failed_question_ends_the_publisher() -> None:
    class Broken(Answers):
        def committed(self, position: Position) -> int:
            raise LookupError(position)

    requests = SegmentRequests(1, "7.ab", in_flight(Broken()), at_once)
    requests.want(EVENTS)
    with pytest.raises(LookupError):
        requests.take(19)


def test_what_the_brokers_do_not_say_is_not_lost() -> None:
    class Silent(Answers):
        def end_of(self, position: Position) -> int | None:
            return None

    followed = in_flight(Silent())
    followed.add(EVENTS)
    assert followed.take_lost() == []


def committed(member: Consumer, place: TopicPartition) -> bool:
    """Whether the brokers took an offset; a group's coordinator may still be on its way."""
    try:
        member.commit(offsets=[place], asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in COORDINATOR_COMES:
            raise
        return False
    return True


def test_one_client_a_group_answers_all_questions(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Counted(Consumer):
        def __init__(self, config: dict[str, object]) -> None:
            made.append(str(config["group.id"]))
            super().__init__(config)

    monkeypatch.setattr(in_flight_module, "Consumer", Counted)
    topic, groups = "events.history", [f"{kafka.topic_prefix}sink.{lane}" for lane in "ab"]
    member = Consumer(consumer_config(kafka, groups[0]))
    place = TopicPartition(topic_name(kafka.topic_prefix, topic), 1, 7)
    until(lambda: committed(member, place), "the group's coordinator")
    member.close()
    brokers = Brokers(kafka)
    # A broker does not lead a partition at once that was just made, nor coordinate a group.
    for group in groups:
        asked = (group, topic, 1)
        until(lambda asked=asked: brokers.end_of(asked) is not None, "the partition's leader")
        until(lambda asked=asked: brokers.committed(asked) is not None, "the coordinator")

    for _ in range(5):
        assert brokers.committed((groups[0], topic, 1)) == 7
        assert brokers.committed((groups[1], topic, 1)) == 0
        assert brokers.end_of((groups[1], topic, 1)) == 0
    assert sorted(made) == sorted(groups)
