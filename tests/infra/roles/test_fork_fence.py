"""What a worker says that has lost its chain, and does not know, is not followed."""

from __future__ import annotations

import dataclasses

import pytest

from infra.kafka.producer import EnvelopeProducer
from infra.roles.fork_fence import ANEW_MS, BEHIND_MAX, ForkFence
from infra.roles.fork_tail import ForkTail, whole_of
from infra.roles.topic_reader import Read
from infra.settings_cluster import KafkaSettings
from processors.agent_messages import HEARD, SNAPSHOT, fork_envelope
from schemas.codec import UnknownMessage
from schemas.segments import BlockRef, Envelope, ForkUpdate
from sinks.fork_view import ForkView
from tests.processors.head_words import block


def update(
    head: BlockRef, *, removed: tuple[BlockRef, ...] = (), added: tuple[BlockRef, ...] = ()
) -> ForkUpdate:
    return ForkUpdate(1, head, None, ref(10), removed, added, 0)


def ref(number: int, branch: int = 0) -> BlockRef:
    return block(number, branch=branch)


def word(told: ForkUpdate, heard: int) -> Envelope:
    """As the reorg agent tells it."""
    envelope = fork_envelope(told, heard)
    whole = {SNAPSHOT: "1"} if told.added[:1] == (ref(10),) else {}
    return dataclasses.replace(envelope, headers=envelope.headers | whole)


WHOLE = update(ref(12), added=(ref(10), ref(11), ref(12)))
BACK = update(ref(11), removed=(ref(12),))
STALE = update(ref(12), added=(ref(12),))
"""It fits what is told last, and is of the past."""
ON = update(ref(12, 1), added=(ref(12, 1),))


def read(envelope: Envelope, offset: int = 0, at_ms: int = 0) -> Read:
    return Read(0, offset, at_ms, envelope)


def test_a_word_that_is_behind_is_left_out() -> None:
    fence = ForkFence()
    told = [read(word(WHOLE, 7)), read(word(BACK, 9)), read(word(STALE, 8)), read(word(ON, 9))]
    assert [one for each in told for one in fence.take(each)] == [told[0], told[1], told[3]]


def test_words_of_the_past_are_remembered_up_to_a_bound() -> None:
    fence = ForkFence()
    fence.take(read(word(WHOLE, 7)))
    assert fence.take(read(word(WHOLE, 1))) == []
    for _ in range(BEHIND_MAX):
        assert fence.take(read(word(STALE, 1))) == []
    # They are forgotten; only a snapshot can be gone on from.
    assert fence.take(read(word(STALE, 1), at_ms=ANEW_MS)) == []
    whole = read(word(WHOLE, 2), at_ms=ANEW_MS)
    assert fence.take(whole) == [whole]


@pytest.mark.parametrize("heard", [None, "", "seven"])
def test_a_word_that_does_not_say_what_was_heard_is_followed(heard: str | None) -> None:
    fence, envelope = ForkFence(), word(ON, 0)
    headers = {name: text for name, text in envelope.headers.items() if name != HEARD}
    if heard is not None:
        headers[HEARD] = heard
    silent = read(dataclasses.replace(envelope, headers=headers))
    for one in (read(word(WHOLE, 7)), silent):
        assert fence.take(one) == [one]
    assert fence.take(read(word(STALE, 6))) == []


def test_a_topic_of_heads_that_was_made_anew_is_followed_after_a_while() -> None:
    fence = ForkFence()
    fence.take(read(word(WHOLE, 1_000)))
    update_before = read(word(ON, 0), 0, 1)
    whole, after = read(word(WHOLE, 1), 1, 2), read(word(BACK, 2), 2, 3)
    last = read(word(ON, 3), 3, 1 + ANEW_MS)
    for one in (update_before, whole, after):
        assert fence.take(one) == []

    assert fence.take(last) == [whole, after, last], "from the last snapshot on"
    assert fence.take(read(word(ON, 2))) == []


def test_while_others_speak_of_the_present_nothing_began_anew() -> None:
    fence = ForkFence()
    for turn in range(5):
        fence.take(read(word(ON, 1_000 + turn), at_ms=turn * ANEW_MS))
        assert fence.take(read(word(WHOLE, 5), at_ms=turn * ANEW_MS + 1)) == []


def test_what_was_told_before_is_taken_up_as_one_state() -> None:
    extended = update(ref(13), added=(ref(12, 1), ref(13, 1)))
    (whole,) = whole_of([WHOLE, BACK, dataclasses.replace(extended, head=ref(13, 1))])
    assert whole.added == (ref(10), ref(11), ref(12, 1), ref(13, 1))
    assert (whole.head, whole.finalized, whole.removed) == (ref(13, 1), ref(10), ())
    assert whole_of([BACK]) == [BACK]
    assert whole_of([]) == []


def follow(kafka: KafkaSettings, view: ForkView, *, then: tuple[Envelope, ...] = ()) -> None:
    """Let a view follow what lies in `forks`, and what is told after it began."""

    def refuse(read: Read, error: UnknownMessage) -> None:
        raise AssertionError((read, error))

    applied: list[ForkUpdate] = []

    def apply(told: ForkUpdate) -> None:
        applied.append(told)
        view.apply(told)

    tail = ForkTail(kafka, 1, apply, refuse)
    tail.begin()
    with EnvelopeProducer(kafka) as producer:
        for envelope in then:
            producer.deliver_blocking(envelope)
    end = word(update(ref(99)), 10**6)
    with EnvelopeProducer(kafka) as producer:
        producer.deliver_blocking(end)
    while not applied or applied[-1].head != ref(99):
        tail.poll(1.0)
    tail.close()


@pytest.mark.parametrize("begun", [0, 1, 2, 4])
def test_a_follower_is_not_led_into_the_past(kafka: KafkaSettings, begun: int) -> None:
    """A woken worker tells an update that fits, and a whole snapshot, as old as it is."""
    told = tuple(
        word(one, heard) for one, heard in ((WHOLE, 7), (BACK, 9), (STALE, 8), (WHOLE, 8), (ON, 10))
    )
    with EnvelopeProducer(kafka) as producer:
        for envelope in told[:begun]:
            producer.deliver_blocking(envelope)
    view = ForkView()
    follow(kafka, view, then=told[begun:])

    assert view.head == ref(12, 1)
    assert view.hash_at(12) == ref(12, 1).hash
