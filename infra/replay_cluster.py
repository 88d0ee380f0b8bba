"""A range of a cluster's chain in, requests for it and mended loads out: `headrace replay`.

While it mends, and only then, the replay is the chain's publisher: it claims, writes one canon row,
and releases. The publisher of before ends with HR-4507, and its supervisor starts it again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from infra.display import Display
from infra.kafka.admin import check_topics
from infra.kafka.producer import EnvelopeProducer
from infra.replay import Replay, Replayed, wait_for
from infra.roles.chain_database import open_storage
from infra.roles.ingest_topics import told_height
from infra.roles.topic_reader import TopicReader
from infra.settings import Settings
from infra.storage import Storage
from ingest.requests import request_envelope
from schemas.codec import encode_publisher_claim
from schemas.errors_replay import ReplayStalled
from schemas.segments import CHECKPOINTS, REQUESTS, Envelope, PublisherClaim, SegmentWanted
from schemas.topics import CLAIMS
from sinks.canon_table import newest_generation
from sinks.fresh import Fresh

STALL_SECONDS = 90.0
"""So long nothing may come before a request is repeated, or the replay ends."""
POLL_SECONDS = 0.5
ATTEMPTS_MAX = 2


def replay_cluster(
    settings: Settings, from_block: int, to_block: int, display: Display
) -> Replayed:
    """Replay a range by the cluster's own ingesters, agents and sinks.

    Raises
    ------
    HeadraceError
        One of HR-64xx; whatever opening Kafka and ClickHouse raises.
    """
    partitions = check_topics(settings.kafka, (REQUESTS, CLAIMS, CHECKPOINTS))
    storage = open_storage(settings, "replay")
    try:
        with EnvelopeProducer(settings.kafka, partitions, client_id="headrace-replay") as producer:
            requested = Requested(storage, producer)
            claim = partial(_claimed, storage, producer)
            with TopicReader(settings.kafka, CHECKPOINTS) as checkpoints:
                told = told_height(checkpoints.read_to_end(), storage.chain_id)
            replay = Replay(storage, requested, claim, display, beyond=True, told=told)
            return replay.run(from_block, to_block)
    finally:
        storage.close()


class Requested:
    """Has segments come again by asking for them in the topic `requests`."""

    def __init__(
        self, storage: Storage, producer: EnvelopeProducer, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._storage, self._producer = storage, producer
        self._stall_seconds = stall_seconds

    def load(self, starts: Sequence[int], loaded: Callable[[], Fresh]) -> None:
        """Ask for grid segments and wait until the ledger has all of them.

        Raises
        ------
        ReplayStalled
        HeadraceError
            One of HR-40xx, HR-60xx.
        """
        streams = sorted({table.stream for table in self._storage.tables})
        wanted = [(stream, start) for start in starts for stream in streams]
        missing, size = wanted, self._storage.facts.segment_blocks
        for _ in range(ATTEMPTS_MAX):
            self._ask(sorted({start for _, start in missing}))
            found = wait_for(loaded, len(wanted), self._stall_seconds, POLL_SECONDS)
            missing = [key for key in wanted if key not in found]
            if not missing:
                return
        stream, start = missing[0]
        raise ReplayStalled(
            missing=len(missing),
            asked=len(wanted),
            seconds=self._stall_seconds,
            stream=stream,
            from_block=start,
            to_block=start + size - 1,
        )

    def _ask(self, starts: Sequence[int]) -> None:
        """One request for each run of neighbouring segments."""
        size, request_id = self._storage.facts.segment_blocks, f"replay.{secrets.token_hex(8)}"
        runs: list[tuple[int, int]] = []
        for start in starts:
            if runs and runs[-1][1] + 1 == start:
                runs[-1] = (runs[-1][0], start + size - 1)
            else:
                runs.append((start, start + size - 1))
        for first, last in runs:
            wanted = SegmentWanted(
                chain_id=self._storage.chain_id,
                from_block=first,
                to_block=last,
                last_hash=None,
                streams=("blocks", "logs", "events", "aggregates"),
                request_id=request_id,
                reason="headrace replay",
                requested_at_ms=int(time.time() * 1000),
            )
            self._producer.deliver_blocking(request_envelope(wanted))


@contextlib.contextmanager
def _claimed(storage: Storage, producer: EnvelopeProducer) -> Iterator[int]:
    """Be the publisher for as long as the block takes; gives the generation."""
    name = secrets.token_hex(8)

    def word(kind: str, generation: int) -> Envelope:
        claim = PublisherClaim(
            chain_id=storage.chain_id,
            kind=kind,  # type: ignore[arg-type]
            generation=generation,
            publisher=name,
            host=f"replay@{socket.gethostname()}",
            pid=os.getpid(),
            observed_at_ms=int(time.time() * 1000),
        )
        key = str(storage.chain_id).encode()
        headers = {"chain_id": key.decode(), "schema": "PublisherClaim"}
        return Envelope(CLAIMS, key, encode_publisher_claim(claim), headers)

    newest = newest_generation(storage.reader, storage.database)
    _, offset = producer.deliver_blocking(word("claim", 0))
    while offset + 1 <= newest:
        _, offset = producer.deliver_blocking(word("claim", 0))
    try:
        yield offset + 1
    finally:
        producer.deliver_blocking(word("release", offset + 1))
