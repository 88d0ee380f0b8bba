"""A worker begins where its group ended, whatever is under way when its partitions begin."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

from infra.settings_cluster import KafkaSettings
from schemas.segments import Envelope
from schemas.topics import partition_of
from tests.infra.roles.test_process_reorg import envelopes
from tests.infra.roles.workers import Worker, drained, raw_logs, send, until, worker
from tests.processors.head_words import random_heads

HEADS, RAW, EVENTS = "raw.heads", "raw.logs.head", "events.head"

BUSY = """
import asyncio
import sys
from pathlib import Path
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher
from faust.tables.recovery import Recovery
from infra.cli import main

folder = Path(sys.argv[1])
fetched, wait, seek = Fetcher.fetched_records, Recovery._wait, AIOKafkaConsumer.seek_to_committed

async def patient(self, partitions, timeout, max_records):
    return await fetched(self, partitions, 3 * timeout, max_records)

async def late(self, *args, **kwargs):
    found = await wait(self, *args, **kwargs)
    await asyncio.sleep(0.02)
    return found

async def slow(self, *partitions):
    found = await seek(self, *partitions)
    (folder / "sought").touch()
    while not (folder / "sent").exists():
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    return found

Fetcher.fetched_records, Recovery._wait, AIOKafkaConsumer.seek_to_committed = patient, late, slow
sys.exit(main(["process", "--lanes", "head"]))
"""
"""A worker on a busy machine: a fetch of the changelog is under way when it seeks, and messages
come in before it goes on."""


def messages(kafka: KafkaSettings) -> dict[int, list[Envelope]]:
    """Some segments of the head lane, by their partition."""
    found: dict[int, list[Envelope]] = {number: [] for number in range(kafka.partitions)}
    for one in raw_logs()[:40]:
        found[partition_of(one.key, kafka.partitions)].append(replace(one, topic=RAW))
    return found


def test_a_fetch_that_is_under_way_when_partitions_begin_takes_no_message_with_it(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    """Faust throws away what such a fetch brings, and goes on behind it where nothing was ever
    committed: nobody would read that before the next message came."""
    heads, segments = envelopes(random_heads(random.Random(3), 80)), messages(kafka)
    first = [one for number in (0, 1) for one in segments[number][:4]]
    send(kafka, [*heads[:40], *first])
    with worker(kafka, "head") as one:
        until(lambda: drained(kafka, "head", RAW), "the first segments", one)
        until(lambda: drained(kafka, "head", HEADS), "the first heads", one)
        one.stop()
    # Those of partitions of which nothing was committed come first.
    new = [*segments[2], *segments[3]]
    rest = [one for number in (0, 1) for one in segments[number][4:]]

    busy = Worker(kafka, [sys.executable, "-c", BUSY, str(tmp_path)], "a")
    try:
        until((tmp_path / "sought").exists, "its first seek", busy)
        send(kafka, new)
        send(kafka, [*heads[40:], *rest])
        (tmp_path / "sent").touch()
        until(lambda: drained(kafka, "head", RAW), "every segment", busy)
        until(lambda: drained(kafka, "head", EVENTS), "what was derived of them", busy)
        said = busy.stop()
    finally:
        busy.kill()
    assert busy.code == 0, said
