"""A partition that Kafka dropped messages of in, the blocks to replay for it out."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from infra.roles.topic_reader import TopicReader
from infra.settings_cluster import KafkaSettings
from infra.storage import Storage
from sinks.canon_table import read_canon


def lost_range(
    storage: Storage,
    kafka: KafkaSettings,
    topic: str,
    partition: int,
    stopping: threading.Event | None = None,
) -> tuple[int, int]:
    """First and last block to ingest again: from the first that is not loaded to what is kept.

    More than what was dropped, maybe: a replay changes nothing where nothing is missing.

    Parameters
    ----------
    storage
        The chain's database.
    kafka
        The settings.
    topic
        The topic, without the prefix.
    partition
        Its partition.
    stopping
        See `TopicReader`.

    Raises
    ------
    HeadraceError
        One of HR-40xx or HR-60xx.
    """
    row = read_canon(storage.reader, storage.database)
    stream, lane = _stream_and_lane(topic)
    spans: list[tuple[int, int]] = storage.reader.execute(
        "SELECT DISTINCT from_block, to_block FROM ledger WHERE stream = %(stream)s "
        "ORDER BY from_block, to_block",
        {"stream": stream},
    )
    floor = row.floor if row is not None else (spans[0][0] if spans else 0)
    first = first_hole(spans, floor)
    kept = _oldest_kept(kafka, topic, partition, stopping)
    if kept is not None and kept > first:
        return first, kept - 1
    newest = max((last for _, last in spans), default=first)
    size = storage.facts.segment_blocks if lane == "history" else 1
    return first, max(newest, first + size - 1)


def first_hole(spans: Iterable[tuple[int, int]], floor: int) -> int:
    """The first block from `floor` on that none of the spans holds; they are in order."""
    at = floor
    for first, last in spans:
        if first > at:
            break
        at = max(at, last + 1)
    return at


def _oldest_kept(
    kafka: KafkaSettings, topic: str, partition: int, stopping: threading.Event | None
) -> int | None:
    """The first block of the oldest message of a partition; None where it says none."""
    with TopicReader(kafka, topic, stopping=stopping) as reader:
        low, high = reader.bounds(partition)
        for read in reader.read(partition, low, min(low + 1, high)):
            text = read.envelope.headers.get("from", "")
            return int(text) if text.isdecimal() else None
    return None


def _stream_and_lane(topic: str) -> tuple[str, str]:
    stream, lane = topic.removeprefix("raw.").rsplit(".", 1)
    return stream, lane
