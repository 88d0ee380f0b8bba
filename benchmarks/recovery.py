"""How long a killed worker's partitions stand still: kill -9 to the next output of each.

A worker of `process` and one of `sink` own every partition of their lane while history comes in at
a steady rate. One is killed; the supervisor starts it again (after half a second), and it takes its
partitions back as the same static member. Measured, for each partition that it owned: the time
from the kill until the first output that it made of a message of that partition. For `process`
that is a new message in `events.history`; for `sink` a committed offset of `raw.logs.history`. It
commits whole loads: here its batches wait for a second, or their age would be all that is seen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.cluster_job import CHAIN, READY_SECONDS_MAX
from benchmarks.head_latency import percentiles
from benchmarks.measure import record
from benchmarks.served import archive_folder, serve_archive
from infra.kafka.clients import consumer_config
from infra.local.cluster import LocalCluster
from infra.local.directory import LocalDirectory
from infra.settings_cluster import KafkaSettings
from infra.settings_sources import load_settings
from schemas.topics import topic_name

BLOCKS = 10_000
BLOCKS_PER_SECOND = 20
"""So much comes in: each of two partitions gets a segment of ten blocks a second."""
PARTITIONS = 2
BATCH_SECONDS_MAX = 1.0
POLL_SECONDS = 0.02
STILL_SECONDS_MAX = 120.0
BETWEEN_SECONDS = 14.0
"""Before each kill: so a role has lived for longer than `STEADY_SECONDS` when its turn comes again,
and the supervisor does not take it for one that fails at its start."""

Places = dict[int, int]
"""How far each partition is."""


class Ends:
    """How far the partitions of a topic are: its messages, and what a group committed."""

    def __init__(self, kafka: KafkaSettings, group: str, topic: str) -> None:
        self._name = topic_name(kafka.topic_prefix, topic)
        self._consumer = Consumer(consumer_config(kafka, topic_name(kafka.topic_prefix, group)))
        self._places = [TopicPartition(self._name, number) for number in range(PARTITIONS)]

    def written(self) -> Places:
        """The end of each partition."""
        return {
            place.partition: self._consumer.get_watermark_offsets(place, 10)[1]
            for place in self._places
        }

    def committed(self) -> Places:
        """What the group has committed of each."""
        return {
            place.partition: max(0, place.offset)
            for place in self._consumer.committed(self._places, 10)
        }

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def still_seconds(kill: Callable[[], None], look: Callable[[], Places]) -> list[float]:
    """Seconds from the kill until each partition is further than it was at the kill."""
    kill()
    at, before = time.monotonic(), look()
    moved: dict[int, float] = {}
    while len(moved) < len(before):
        seconds = time.monotonic() - at
        if seconds > STILL_SECONDS_MAX:
            raise SystemExit(f"only partitions {sorted(moved)} move again")
        for partition, place in look().items():
            if place > before[partition]:
                moved.setdefault(partition, time.monotonic() - at)
        time.sleep(POLL_SECONDS)
    return list(moved.values())


def run(kills: int, folder: Path) -> dict[str, Any]:
    """Kill each role so many times."""
    found: dict[str, list[float]] = {"process-history-0": [], "sink-0": []}
    with (
        tempfile.TemporaryDirectory(prefix="headrace-recovery-") as scratch,
        serve_archive(folder, BLOCKS) as served,
    ):
        config = Path(scratch) / "headrace.toml"
        config.write_text(
            f"chain = '{CHAIN}'\nrpc = ['{served.url}']\nfrom = 0\n"
            f"[kafka]\npartitions = {PARTITIONS}\n"
            f"[roles]\nhistory_blocks_per_second_max = {BLOCKS_PER_SECOND}\n"
            f"[limits]\nbatch_seconds_max = {BATCH_SECONDS_MAX}\n"
        )
        settings = load_settings(config, {}, {})
        with LocalCluster(LocalDirectory(Path(scratch) / "cluster"), settings) as cluster:
            cluster.await_ready(READY_SECONDS_MAX)
            kafka = cluster.settings.kafka
            events = Ends(kafka, "look", "events.history")
            logs = Ends(kafka, "sink.history", "raw.logs.history")
            look = {"process-history-0": events.written, "sink-0": logs.committed}
            for _ in range(kills):
                for name, ask in look.items():
                    time.sleep(BETWEEN_SECONDS)
                    _await_movement(ask)
                    found[name] += still_seconds(partial(cluster.kill, name), ask)
            events.close()
            logs.close()
    seconds = {name: percentiles(np.array(values)) for name, values in found.items()}
    return {
        "kills_of_each": kills,
        "blocks_per_second": BLOCKS_PER_SECOND,
        "batch_seconds_max": BATCH_SECONDS_MAX,
        "session_timeout_seconds": settings.kafka.session_timeout_seconds,
        "seconds_until_a_partition_moves": seconds,
    }


def _await_movement(look: Callable[[], Places]) -> None:
    """Wait until every partition moves: the last kill is over."""
    before = look()
    until = time.monotonic() + STILL_SECONDS_MAX
    while any(place <= before[partition] for partition, place in look().items()):
        if time.monotonic() > until:
            raise SystemExit("a partition does not move before the kill")
        time.sleep(POLL_SECONDS)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--archive", type=Path, help="folder of the chain, made where missing")
    given = parser.parse_args(words)
    record("recovery", run(given.kills, archive_folder(given.archive, BLOCKS)))


if __name__ == "__main__":
    main()
