"""Envelopes in, a broker's topics and the checkpoint out: only what is acknowledged counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from ingest.checkpoint import Checkpoint
from schemas.codec import decode_finality_advanced, decode_head_observed, encode_head_observed
from schemas.segments import AGAIN, BlockRef, Envelope

OnDelivered = Callable[[Envelope, int, int], None]
"""Called with an envelope, its partition and its offset, from any thread."""
RAW_SCHEMAS = frozenset({"BlockSegment", "LogSegment"})
"""The messages that make a segment whole: every source gives both."""


class Producer(Protocol):
    """Where envelopes become durable."""

    async def put(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        """Take an envelope, waiting while too many bytes are under way."""
        ...

    async def deliver(self, envelope: Envelope, *, partition: int | None = None) -> tuple[int, int]:
        """Take an envelope and wait until it is acknowledged: its partition and offset."""
        ...


class AcknowledgedSink:
    """The sink of one lane: what the producer delivers goes into the checkpoint.

    Parameters
    ----------
    producer
        Of this lane alone: a lane never waits for the other's bytes.
    checkpoint
        Told of what is acknowledged.
    """

    def __init__(self, producer: Producer, checkpoint: Checkpoint) -> None:
        self.blocks = 0
        """Blocks of which every message is acknowledged."""
        self._producer, self._checkpoint = producer, checkpoint
        self._waiting: dict[tuple[str, ...], set[str]] = {}
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Messages that were put and are not acknowledged."""
        return self._in_flight

    async def put(self, envelope: Envelope) -> None:
        """Take one envelope, waiting while there is no room."""
        schema = envelope.headers["schema"]
        if schema == "HeadObserved":
            envelope = self._signed(envelope)
        with self._lock:
            self._in_flight += 1
        try:
            await self._producer.put(envelope, on_delivered=self._delivered)
        except BaseException:
            # Also where whoever waits for room is cancelled: nothing of it is under way.
            with self._lock:
                self._in_flight -= 1
            raise

    async def deliver(self, envelope: Envelope, again: str) -> None:
        """Put an envelope of a request, and wait until it is acknowledged."""
        asked = replace(envelope, headers={**envelope.headers, AGAIN: again})
        await self._producer.deliver(asked)

    def _signed(self, envelope: Envelope) -> Envelope:
        """A header under the name of this ingester's provider, which the checkpoint knows.

        Two ingesters may ask the same endpoint, one a moment later: to the reorg agent they are
        two providers, or the slower one's word would be a reorg to an older head.
        """
        header = decode_head_observed(envelope.value)
        header = replace(header, provider=f"{header.provider} ({self._checkpoint.instance})")
        self._checkpoint.observe(header)
        return replace(envelope, value=encode_head_observed(header))

    def _delivered(self, envelope: Envelope, partition: int, offset: int) -> None:
        del partition, offset
        headers = envelope.headers
        schema = headers["schema"]
        if schema == "FinalityAdvanced":
            final = decode_finality_advanced(envelope.value)
            if final.kind == "finalized":
                self._checkpoint.finalize(BlockRef(final.number, final.hash))
        elif schema in RAW_SCHEMAS and self._is_whole(headers, schema):
            first, last = int(headers["from"]), int(headers["to"])
            block_hash = bytes.fromhex(headers["last_hash"])
            self._checkpoint.acknowledge(first, last, block_hash, headers["lane"])
        with self._lock:
            self._in_flight -= 1

    def _is_whole(self, headers: Mapping[str, str], schema: str) -> bool:
        """Whether a message was the last one that its segment waited for."""
        name = tuple(headers[key] for key in ("lane", "from", "to", "last_hash"))
        with self._lock:
            waiting = self._waiting.setdefault(name, set(RAW_SCHEMAS))
            waiting.discard(schema)
            if waiting:
                return False
            del self._waiting[name]
            self.blocks += int(headers["to"]) - int(headers["from"]) + 1
            return True
