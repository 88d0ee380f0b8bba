"""The reorg agent on a real broker: killed, restarted, bereft of its changelog, halted."""

from __future__ import annotations

import itertools
import random
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from confluent_kafka.admin import NewTopic

from infra.kafka.admin import connect, topic_config
from infra.settings_cluster import KafkaSettings
from ingest.publish import finality_envelope, head_envelope
from processors.fork import ForkLimits, ForkState, Halt
from processors.fork_codec import KeptFork, decode_fork, encode_fork
from processors.heads import NOTHING, hear
from schemas.codec import decode_dead_letter, decode_fork_update
from schemas.segments import Envelope, FinalityAdvanced
from schemas.topics import FORK_STATE, topic_name, topics_by_name
from sinks.fork_view import ForkView
from tests.infra.roles.kafka_reader import read_topic
from tests.infra.roles.workers import (
    Worker,
    committed,
    count,
    drained,
    forget_before,
    send,
    until,
    worker,
)
from tests.patience import PATIENCE_SECONDS
from tests.processors.head_words import Message, block, final, head, random_heads

HEADS = "raw.heads"


def envelopes(told: Iterable[Message]) -> list[Envelope]:
    return [
        finality_envelope(one) if isinstance(one, FinalityAdvanced) else head_envelope(one)
        for one in told
    ]


def straight(told: Sequence[Message]) -> ForkState:
    """The state after every message once."""
    kept: KeptFork = NOTHING
    for offset, one in enumerate(told):
        heard = hear(kept, offset, one, ForkLimits())
        assert not any(isinstance(event, Halt) for event in heard.events)
        kept = heard.kept
    assert kept.state is not None
    return kept.state


def followed(kafka: KafkaSettings) -> tuple[ForkView, int]:
    """What a follower of ``forks`` knows in the end, and how many snapshots it was told.

    Every update fits what it knows: none was left out, none is of the past.
    """
    view, snapshots, heard = ForkView(), 0, -1
    for envelope in read_topic(kafka, "forks"):
        update = decode_fork_update(envelope.value)
        whole = envelope.headers.get("snapshot") == "1"
        snapshots += whole
        assert whole == (bool(update.added) and update.added[0] == update.finalized)
        before = view.finalized.number if view.finalized else -1
        assert view.apply(update), (envelope.headers, view.head, update)
        assert update.finalized is not None
        assert update.finalized.number >= before, "nobody is led back into the past"
        assert int(envelope.headers["heard"]) >= heard, "nor left out by those who follow"
        heard = int(envelope.headers["heard"])
        assert (envelope.key, envelope.headers["schema"]) == (b"1", "ForkUpdate")
    return view, snapshots


def assert_follows(kafka: KafkaSettings, told: Sequence[Message]) -> int:
    view, snapshots = followed(kafka)
    state = straight(told)
    assert (view.head, view.safe, view.finalized) == (state.head, state.safe, state.finalized)
    assert view.hash_at(state.head.number) == state.head.hash
    return snapshots


@pytest.mark.parametrize("seed", [3])
def test_a_killed_agent_goes_on_from_its_changelog(kafka: KafkaSettings, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    told = random_heads(rng, 500)
    repeated = [*told[:300], *told[290:300], *told[300:]]
    sent = 0
    for life in range(5):
        told_before = followed(kafka)[1]

        def at_work(one: Worker, before: int = told_before) -> bool:
            # Its snapshot, not any word: the brokers may still take one of the life before.
            return one.ready and followed(kafka)[1] > before

        with worker(kafka, "head", "--agents", "reorg") as one:
            upto = len(repeated) if life == 4 else sent + rng.randrange(60, 120)
            send(kafka, envelopes(repeated[sent:upto]))
            sent = upto
            if life < 4:
                until(partial(at_work, one), "its snapshot", one)
                said = one.stop(rng.choice([signal.SIGKILL, signal.SIGTERM]))
                assert one.code in (0, -signal.SIGKILL), said
                continue
            until(lambda: drained(kafka, "head", HEADS), "the last head", one)
            said = one.stop()
            assert one.code == 0, said

    assert assert_follows(kafka, repeated) >= 5, "each life begins with a snapshot"


def stored(kafka: KafkaSettings) -> KeptFork:
    """The last state in the changelog."""
    return decode_fork(read_topic(kafka, FORK_STATE)[-1].value, ForkLimits())


@pytest.mark.parametrize("seed", [7])
def test_a_worker_that_stood_still_loses_no_head(kafka: KafkaSettings, seed: int) -> None:
    """It loses its partition while heads go on, wakes in the middle of its work, and takes over."""
    print(f"seed {seed}")
    told = random_heads(random.Random(seed), 900)
    reorg = ("--agents", "reorg")
    with worker(kafka, "head", *reorg, instance=None) as first:
        send(kafka, envelopes(told[:100]))
        until(lambda: drained(kafka, "head", HEADS), "the first heads", first)
        with worker(kafka, "head", *reorg, instance=None) as second:
            until(lambda: second.ready, "its place in the group", first, second)
            before = count(kafka, FORK_STATE)
            send(kafka, envelopes(told[100:300]))
            until(lambda: count(kafka, FORK_STATE) > before, "a state", first, second)
            members = [one for one in (first, second) if "fork_states_read" in one.said]
            owner = members[-1]
            other = second if owner is first else first
            owner.process.send_signal(signal.SIGSTOP)
            send(kafka, envelopes(told[300:600]))
            until(lambda: drained(kafka, "head", HEADS), "another to take over", other)
            owner.process.send_signal(signal.SIGCONT)
            send(kafka, envelopes(told[600:750]))
            other.kill()
            send(kafka, envelopes(told[750:]))
            with worker(kafka, "head", *reorg, instance=None) as third:
                until(lambda: drained(kafka, "head", HEADS), "the last head", third)
                third.stop()
                owner.stop()

    kept = stored(kafka)
    assert kept.state == straight(told)
    assert kept.offset == len(told) - 1


def test_a_state_older_than_what_is_committed_hears_the_rest(kafka: KafkaSettings) -> None:
    """A worker that had lost the partition wrote its state last; it is killed after that."""
    told = random_heads(random.Random(12), 300)
    send(kafka, envelopes(told[:200]))
    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        one.stop()
    older: KeptFork = NOTHING
    for offset, message in enumerate(told[:80]):
        older = hear(older, offset, message, ForkLimits()).kept
    send(kafka, [Envelope(FORK_STATE, b"1", encode_fork(older))])
    send(kafka, envelopes(told[200:]))

    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        one.stop()
    assert stored(kafka).state == straight(told)
    assert_follows(kafka, told)


HASTY = """
import sys, processors.agents as agents
from infra.cli import main
agents.LIFT_SECONDS = 0.2
sys.exit(main(["process", "--lanes", "head", "--agents", "reorg"]))
"""
"""A worker that soon says of a silent chain that it has heard all there was."""


def test_a_chain_that_is_silent_for_longer_than_heads_are_kept_has_lost_none(
    kafka: KafkaSettings,
) -> None:
    told = random_heads(random.Random(21), 60)
    other = [replace(one, chain_id=2) for one in random_heads(random.Random(22), 20)]
    send(kafka, envelopes([*other, *told[:50]]))
    hasty = Worker(kafka, [sys.executable, "-c", HASTY])
    try:

        def lifted() -> bool:
            states = {one.key: one.value for one in read_topic(kafka, FORK_STATE)}
            offsets = {decode_fork(one, ForkLimits()).offset for one in states.values()}
            return len(states) == 2 and offsets == {count(kafka, HEADS) - 1}

        until(lifted, "both states to reach to the end", hasty)
    finally:
        hasty.kill()
    forget_before(kafka, HEADS, 0, count(kafka, HEADS))

    send(kafka, envelopes(told[50:]))
    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        said = one.stop()
    assert one.code == 0, said
    last = {one.key: one.value for one in read_topic(kafka, FORK_STATE)}
    assert decode_fork(last[b"1"], ForkLimits()).state == straight(told)


def test_foreign_messages_among_heads_are_refused(kafka: KafkaSettings) -> None:
    told = random_heads(random.Random(4), 30)
    good = envelopes(told)
    poison = [
        Envelope(HEADS, b"1", b"no head", {}),
        Envelope(HEADS, b"1", good[3].value[:20], good[3].headers),
    ]
    send(kafka, [*good[:10], poison[0], *good[10:20], poison[1], *good[20:]])
    with worker(kafka, "head", "--agents", "reorg") as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        one.stop()

    assert_follows(kafka, told)
    letters = [decode_dead_letter(one.value) for one in read_topic(kafka, "dead_letters")]
    assert [(one.stage, one.offset) for one in letters] == [("reorg", 10), ("reorg", 21)]


def lose_changelog(kafka: KafkaSettings) -> None:
    """Delete the topic of fork states and make it again."""
    admin, name = connect(kafka), topic_name(kafka.topic_prefix, FORK_STATE)
    admin.delete_topics([name])[name].result()
    until(
        lambda: name not in admin.list_topics(timeout=PATIENCE_SECONDS).topics,
        "the topic to be gone",
    )
    topic = NewTopic(name, 1, 1, config=topic_config(topics_by_name()[FORK_STATE], kafka))
    admin.create_topics([topic])[name].result()


def test_a_lost_changelog_is_said_and_made_anew(kafka: KafkaSettings) -> None:
    told = random_heads(random.Random(9), 200)
    send(kafka, envelopes(told[:150]))
    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        one.stop()
    before = count(kafka, "forks")
    lose_changelog(kafka)
    send(kafka, envelopes(told[150:]))

    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        said = one.ended()
    assert one.code == 5, said
    assert "HR-6203" in said
    assert "--rebuild-forks" in said
    assert "Traceback" not in said
    assert count(kafka, "forks") == before, "not a word without its state"

    flags = ("--agents", "reorg", "--rebuild-forks")
    with worker(kafka, "head", *flags, instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        until(lambda: count(kafka, "forks") > before, "a snapshot", one)
        said = one.stop()
    assert one.code == 0, said
    assert_follows(kafka, told)


def test_a_halt_says_what_to_do_and_tells_nothing(kafka: KafkaSettings) -> None:
    """The node's head is on a branch that leaves the chain below what was final."""
    chain = [block(n) for n in range(10, 16)]
    told: list[Message] = [final(chain[0])]
    told += [head(above, below) for below, above in itertools.pairwise(chain)]
    told.append(final(chain[4]))
    send(kafka, envelopes(told))
    with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
        until(lambda: drained(kafka, "head", HEADS), "the last head", one)
        one.stop()
    assert_follows(kafka, told)
    other = [chain[1], *(block(n, branch=1) for n in range(12, 18))]
    branch = [head(above, below) for below, above in itertools.pairwise(other)]
    send(kafka, envelopes(branch))

    for _ in range(2):
        with worker(kafka, "head", "--agents", "reorg", instance=None) as one:
            said = one.ended()
        assert one.code == 5, said
        assert "HR-6205" in said
        assert "HR-3001" in said
        assert "headrace rewind" in said
    assert_follows(kafka, told)
    assert committed(kafka, "head", HEADS)[0] < len(told) + len(branch)
