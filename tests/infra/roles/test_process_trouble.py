"""Workers on a real broker when messages are gone, agents fail, and workers come and go."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from infra.exit_codes import ExitCode
from infra.settings_cluster import KafkaSettings
from schemas.segments import Envelope
from schemas.topics import partition_of
from tests.infra.roles.workers import (
    Worker,
    committed,
    count,
    distinct,
    drained,
    embedded,
    ends,
    forget_before,
    place,
    raw_logs,
    send,
    until,
    worker,
)

RAW, EVENTS = "raw.logs.history", "events.history"
DECODE = ("--agents", "decode")
LOT, DROPPED = 20, 2
"""Segments that are sent at a time, and how many of them retention drops in each partition."""

AT_THE_TWENTIETH = """
import sys
import time
from pathlib import Path
import infra.roles.process as role
from infra.cli import main

marker = Path(sys.argv.pop(1))

def once(layouts, build=role.build_steps):
    def derive(value):
        if not marker.exists() and (left := left_of.pop()) == 0:
            marker.touch()
            %s
        return decode.derive(value)
    left_of = list(range(20))
    decode = build(layouts)[0]
    return (type(decode)(decode.agent, decode.takes, decode.gives, derive),)

role.build_steps = once
sys.exit(main(sys.argv[1:]))
"""
FAILING = AT_THE_TWENTIETH % "raise RuntimeError('a fault of the decoder')"
SLOW = AT_THE_TWENTIETH % "time.sleep(13)"


SILENT = """
import asyncio
import sys
from pathlib import Path
from aiokafka.consumer.group_coordinator import GroupCoordinator
from infra.cli import main

marker = Path(sys.argv.pop(1))

async def silent(self):
    await asyncio.Event().wait()

if not marker.exists():
    marker.touch()
    GroupCoordinator._do_heartbeat = silent
sys.exit(main(sys.argv[1:]))
"""


def expected() -> dict[tuple[str, int, int, str], bytes]:
    return {place(made): made.value for made in embedded(raw_logs())}


def assert_goes_on(kafka: KafkaSettings, words: list[str]) -> None:
    """The next worker reads what was not acknowledged, and nothing is left out."""
    again = Worker(kafka, words, "a")
    try:
        until(lambda: drained(kafka, "history", RAW), "the last commit", again)
        said = again.stop()
    finally:
        again.kill()
    assert again.code == 0, said
    assert distinct(kafka, EVENTS) == expected()


def test_an_agent_that_fails_ends_the_worker_and_skips_nothing(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    """Faust itself would skip the event for good."""
    send(kafka, raw_logs())
    marker = str(tmp_path / "failed")
    words = [sys.executable, "-c", FAILING, marker, "process", "--lanes", "history", *DECODE]
    failed = Worker(kafka, words, "a")
    said = failed.ended()
    failed.kill()
    assert failed.code == 1, said
    assert "a fault of the decoder" in said

    assert_goes_on(kafka, words)


def test_a_worker_whose_group_has_lost_it_ends(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Its consumer stands still without an error, and everything else of it lives."""
    marker = str(tmp_path / "silent")
    words = [sys.executable, "-c", SILENT, marker, "process", "--lanes", "history", *DECODE]
    lost = Worker(kafka, words, "a")
    said = lost.ended()
    lost.kill()
    assert lost.code == ExitCode.storage, said
    assert "HR-6206" in said
    assert "was without this worker" in said

    send(kafka, raw_logs())
    assert_goes_on(kafka, words)


def test_a_worker_that_was_silent_beyond_the_poll_interval_joins_again(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    """Its consumer leaves the group, and does not join again while nobody fetches."""
    send(kafka, raw_logs())
    marker = tmp_path / "slow"
    hurried = kafka.model_copy(update={"poll_interval_seconds_max": 10.0})
    words = [sys.executable, "-c", SLOW, str(marker), "process", "--lanes", "history", *DECODE]
    slow = Worker(hurried, words, "a")
    try:
        until(lambda: drained(kafka, "history", RAW), "the last commit", slow)
        said = slow.stop()
    finally:
        slow.kill()
    assert slow.code == 0, said
    assert marker.exists()
    assert distinct(kafka, EVENTS) == expected()


def test_what_retention_dropped_is_a_halt_until_it_is_accepted(kafka: KafkaSettings) -> None:
    raw = raw_logs()
    send(kafka, raw[:40])
    with worker(kafka, "history", *DECODE) as one:
        until(lambda: drained(kafka, "history", RAW), "the first part", one)
        one.stop()
    send(kafka, raw[40:])
    done = committed(kafka, "history", RAW)
    forget_before(kafka, RAW, 2, done[2] + 3)

    with worker(kafka, "history", *DECODE) as one:
        said = one.ended()
    assert one.code == 5, said
    assert "HR-6202" in said
    assert f"partition 2: offsets {done[2]} to {done[2] + 2} are gone" in said
    assert "headrace replay" in said
    assert "Traceback" not in said
    assert committed(kafka, "history", RAW) == done

    with worker(kafka, "history", *DECODE, "--accept-lost") as one:
        until(lambda: drained(kafka, "history", RAW), "the last commit", one)
        said = one.stop()
    assert one.code == 0, said
    assert "offsets_lost_accepted" in said
    assert len(distinct(kafka, EVENTS)) == len(raw) - 3


def test_what_retention_drops_while_a_worker_stands_still_is_found(kafka: KafkaSettings) -> None:
    raw = raw_logs()
    first, *lots = (raw[at : at + LOT] for at in range(0, len(raw), LOT))
    send(kafka, first)
    with worker(kafka, "history", *DECODE) as one:
        until(lambda: drained(kafka, "history", RAW), "the first part", one)
        for lot in lots:
            one.process.send_signal(signal.SIGSTOP)
            begun = ends(kafka, RAW)
            send(kafka, lot)
            for partition, end in begun.items():
                forget_before(kafka, RAW, partition, end + DROPPED)
            one.process.send_signal(signal.SIGCONT)
            until(lambda: one.code is not None or drained(kafka, "history", RAW), "either end")
            if one.code is not None:
                break
            # The fetch that was under way brought all of it, before any was dropped.
        assert one.code is not None, (
            "each time the fetch that was under way had brought all that was dropped"
        )
        said = one.said
    if one.code == ExitCode.storage:
        # The group had moved on before the worker saw the gap: whoever starts next sees it.
        assert "HR-6206" in said
        with worker(kafka, "history", *DECODE) as one:
            said = one.ended()
    assert one.code == ExitCode.halted, said
    assert "HR-6202" in said
    # What was on its way to the worker when it stopped may be done; nothing was passed over.
    made = {key[1:] for key in distinct(kafka, EVENTS)}
    sent: dict[int, list[Envelope]] = {partition: [] for partition in begun}
    for envelope in raw:
        sent[partition_of(envelope.key, kafka.partitions)].append(envelope)
    for partition, at in committed(kafka, "history", RAW).items():
        assert all(place(envelope)[1:] in made for envelope in sent[partition][:at])


def test_workers_that_come_and_go_share_the_work(kafka: KafkaSettings) -> None:
    raw = list(raw_logs())
    send(kafka, raw * 5)
    with (
        worker(kafka, "history", *DECODE, instance="a") as a,
        worker(kafka, "history", *DECODE, instance=None) as b,
    ):
        until(lambda: count(kafka, EVENTS) > 0, "the first event", a, b)
        with worker(kafka, "history", *DECODE, instance=None) as c:
            send(kafka, raw * 3)
            until(lambda: c.ready, "the third worker", a, b, c)
            until(lambda: count(kafka, EVENTS) > 2 * len(raw), "some more", a, b, c)
            said = c.stop()
            assert c.code == 0, said
        b.stop(signal.SIGKILL)
        send(kafka, raw)
        until(lambda: drained(kafka, "history", RAW), "the last commit", a)
        said = a.stop()
    assert a.code == 0, said
    assert distinct(kafka, EVENTS) == expected()


@pytest.mark.parametrize("flags", [("history,head",), ("history", "--agents", "reorg")])
def test_a_worker_has_one_lane_and_an_agent(
    kafka_settings: KafkaSettings, flags: tuple[str, ...]
) -> None:
    words = [sys.executable, "-m", "infra.cli", "process", "--lanes", *flags]
    one = Worker(kafka_settings, words)
    said = one.ended()
    one.kill()

    assert one.code == 2, said
    assert "HR-6201" in said


def test_a_topic_that_is_missing_is_said(kafka_settings: KafkaSettings) -> None:
    one = Worker(
        kafka_settings, [sys.executable, "-m", "infra.cli", "process", "--lanes", "history"]
    )
    said = one.ended()
    one.kill()

    assert one.code == 4, said
    assert "HR-6003" in said
    assert "headrace topics create" in said
    assert "Traceback" not in said
