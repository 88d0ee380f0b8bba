"""Data topics in, complete loads out: the sink stage, embedded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.queues import ByteQueue
from infra.stages import Counts
from schemas.codec import (
    decode_aggregate_segment,
    decode_block_segment,
    decode_event_segment,
    decode_log_segment,
)
from schemas.segments import Envelope, LogSegment, SegmentName
from sinks.batcher import Batch, Batcher
from sinks.ledger import LedgerRow
from sinks.writer import Load, Segment, Writer

FAILURES_TABLE = "decode_failures"
OBSERVED_MAX = 1024
"""Head blocks whose time of observation is remembered, for the latency."""
HEADS_MAX = 32
"""Head blocks of a stream that share their inserts while the head catches up."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the sink remembers of a segment until it is durable."""

    name: SegmentName
    """Its name."""
    observed_at_ms: int
    """When the node had shown its last block, unix milliseconds."""


class HeadTimes:
    """When the node had shown the head blocks that were loaded lately."""

    def __init__(self) -> None:
        self._observed_at_ms: dict[bytes, int] = {}

    def remember(self, block_hash: bytes, observed_at_ms: int) -> None:
        """Keep a block's time, unix milliseconds, and forget the oldest ones."""
        self._observed_at_ms[block_hash] = observed_at_ms
        while len(self._observed_at_ms) > OBSERVED_MAX:
            del self._observed_at_ms[next(iter(self._observed_at_ms))]

    def observed_at_ms(self, block_hash: bytes) -> int | None:
        """A block's time, if it is remembered."""
        return self._observed_at_ms.get(block_hash)


class SinkStage:
    """Writes segments as loads; `apply` and `idle` are called by one thread.

    Parameters
    ----------
    source
        Where the envelopes come from; told when they are durable.
    writer, batcher
        Of that thread.
    durable
        Names of segments that have an accepted load: they are dropped when they come again.
    announce
        Takes the ledger rows of each load.
    clock
        Seconds of a steady clock.
    partition_blocks
        Blocks of one partition.
    head_times
        Told when each head block was observed.
    """

    def __init__(
        self,
        source: ByteQueue,
        writer: Writer,
        batcher: Batcher[Arrival],
        durable: set[SegmentName],
        announce: Callable[[Sequence[LedgerRow]], None],
        clock: Callable[[], float],
        partition_blocks: int,
        head_times: HeadTimes,
    ) -> None:
        self._partition_blocks = partition_blocks
        self._heads: dict[tuple[str, int], list[Segment]] = {}
        self._head_times = head_times
        self._source = source
        self._writer = writer
        self._batcher = batcher
        self._durable = durable
        self._announce = announce
        self._clock = clock
        self.hurry = threading.Event()
        """Set while nothing more is coming: what waits is written at once."""
        self.counts = Counts()
        self.loads = 0
        self.decode_failures = 0

    def apply(self, envelope: Envelope) -> None:
        """Take one segment; write the batches that are full because of it."""
        segment = decode_segment(envelope)
        if segment.name in self._durable:
            self._source.done()
            return
        if segment.name.lane == "head":
            partition = segment.name.from_block // self._partition_blocks
            self._heads.setdefault((segment.name.stream, partition), []).append(segment)
            return
        arrival = Arrival(segment.name, segment.observed_at_ms)
        for batch in self._batcher.add(segment, arrival, self._clock()):
            self._write(batch)

    def idle(self) -> None:
        """Write head blocks unless more of them wait; batches that have waited long enough."""
        for key, segments in list(self._heads.items()):
            if self._source.heads_waiting == 0 or len(segments) >= HEADS_MAX:
                self._write_heads(self._heads.pop(key))
        hurry = self.hurry.is_set() and self._source.bytes_waiting == 0
        for batch in self._batcher.flush() if hurry else self._batcher.due(self._clock()):
            self._write(batch)

    def durable_names(self) -> list[SegmentName]:
        """Names of the segments that are dropped when they come again."""
        return list(self._durable)

    def forget_partition(self, partition: int) -> None:
        """Forget the names of a sealed partition: nothing of it comes again."""
        size = self._partition_blocks
        self.forget([name for name in self.durable_names() if name.from_block // size == partition])

    def forget(self, names: Sequence[SegmentName]) -> None:
        """Take these segments again when they come: their loads do not count."""
        self._durable.difference_update(names)

    def _write_heads(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._head_times.remember(segment.name.last_hash, segment.observed_at_ms)
        self._tell(segments, self._writer.write_apart(segments))

    def _write(self, batch: Batch[Arrival]) -> None:
        self._tell(batch.segments, [self._writer.write(batch.segments)])

    def _tell(self, segments: Sequence[Segment], loads: Sequence[Load]) -> None:
        """Count what is durable, and announce it."""
        # First: whoever hears of a load and refuses it has its names forgotten again.
        self._durable.update(segment.name for segment in segments)
        for load in loads:
            self._announce(load.ledger)
            self.loads += 1
            if load.stream == "events":
                failures = (row.manifest()[FAILURES_TABLE][0] for row in load.ledger)
                self.decode_failures += sum(failures)
        for segment in segments:
            if isinstance(segment, LogSegment):
                self.counts.blocks += segment.headers.rows
                self.counts.logs += segment.logs.rows
        self._source.done(len(segments))


def decode_segment(envelope: Envelope) -> Segment:
    """The segment of a data topic's envelope: at hand, or by the schema that its header names.

    Raises
    ------
    UnknownMessage
        If the bytes are something else.
    """
    if envelope.segment is not None:
        return envelope.segment
    schema = envelope.headers["schema"]
    if schema == "BlockSegment":
        return decode_block_segment(envelope.value)
    if schema == "LogSegment":
        return decode_log_segment(envelope.value)
    if schema == "EventSegment":
        return decode_event_segment(envelope.value)
    return decode_aggregate_segment(envelope.value)
