"""The embedded stages: what each takes and forwards, and that a failure stops the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from infra.queues import ByteQueue, QueueClosed
from infra.sink_stage import HEADS_MAX, OBSERVED_MAX, Arrival, HeadTimes, SinkStage, decode_segment
from infra.stages import Counts, Failures, ReorgStage, Router, Stage, decode_apply
from processors.abi import build_layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from processors.reorg import from_blocks
from schemas.codec import (
    encode_block_segment,
    encode_finality_advanced,
    encode_head_observed,
    encode_log_segment,
)
from schemas.errors_sinks import WriteAbandoned
from schemas.segments import (
    BlockRef,
    BlockSegment,
    Envelope,
    FinalityAdvanced,
    ForkUpdate,
    HeadObserved,
    LogSegment,
    SegmentName,
    segment_envelope,
)
from schemas.tables import WITHDRAWALS, empty_block
from sinks.batcher import Batcher, BatchLimits
from sinks.ledger import LedgerRow
from sinks.writer import Load, Segment, Writer
from tests.sinks.segments_of import blocks_of, logs_of

SOON = 10.0
SEGMENT_BLOCKS, PARTITION_BLOCKS = 10, 100
LAYOUTS = build_layouts()


def queue(name: str = "q") -> ByteQueue:
    return ByteQueue(name, 1 << 20)


def envelope_of(segment: LogSegment | BlockSegment) -> Envelope:
    if isinstance(segment, LogSegment):
        value = encode_log_segment(segment)
    else:
        value = encode_block_segment(replace(segment, withdrawals=empty_block(WITHDRAWALS)))
    return segment_envelope(segment.name, SEGMENT_BLOCKS, value)


def until(ask: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- stages --------------------------------------------------------------------------------------


def test_a_stage_ends_when_its_queue_is_closed_and_drained() -> None:
    source, seen, failures = queue(), list[bytes](), Failures()
    stage = Stage("s", source, lambda envelope: seen.append(envelope.value), failures)
    for value in (b"1", b"2"):
        source.put_blocking(Envelope("raw.logs.head", b"", value, {"lane": "head"}))
    source.close()
    stage.start()
    assert stage.join(SOON)
    assert seen == [b"1", b"2"]
    assert failures.first is None


def test_a_stage_is_idle_between_envelopes() -> None:
    source, idled = queue(), threading.Event()
    stage = Stage("s", source, lambda _: None, Failures(), idled.set)
    stage.start()
    assert idled.wait(SOON)
    source.close()
    assert stage.join(SOON)


def test_a_failing_stage_reports_once_and_stops() -> None:
    source, failures = queue(), Failures()
    told: list[str] = []
    failures.listen(lambda: told.append("told"))

    def fail(envelope: Envelope) -> None:
        raise ValueError(envelope.value.decode())

    stage = Stage("s", source, fail, failures)
    for value in (b"first", b"second"):
        source.put_blocking(Envelope("raw.logs.head", b"", value, {"lane": "head"}))
    stage.start()
    assert stage.join(SOON)
    assert str(failures.first) == "first"
    failures.report(RuntimeError("another stage's"))
    assert str(failures.first) == "first"
    assert told == ["told"]
    # What failed is not done: the pipeline must not take it for drained.
    assert source.undone == 2


def test_a_failure_in_idle_is_a_failure() -> None:
    failures = Failures()

    def fail() -> None:
        raise WriteAbandoned(stream="logs", from_block=0, to_block=9, attempts=3, last="full")

    stage = Stage("s", queue(), lambda _: None, failures, fail)
    stage.start()
    assert stage.join(SOON)
    assert isinstance(failures.first, WriteAbandoned)


async def test_each_topic_goes_to_the_stages_that_take_it() -> None:
    router = Router(queue("sinks"), queue("decode"), queue("heads"))
    for topic in ("raw.blocks.history", "raw.logs.head", "raw.heads"):
        await router.put(Envelope(topic, b"", topic.encode(), {"lane": "head"}))

    def topics(of: ByteQueue) -> list[str]:
        of.close()
        found = []
        while True:
            try:
                one = of.get(SOON)
            except QueueClosed:
                return found
            assert one is not None
            found.append(one.topic)

    assert topics(router.sinks) == ["raw.blocks.history", "raw.logs.head"]
    assert topics(router.decode) == ["raw.logs.head"]
    assert topics(router.heads) == ["raw.heads"]


def test_the_decode_stage_gives_events_and_aggregates_of_the_same_blocks() -> None:
    source, target, counts = queue(), queue(), Counts()
    segment = logs_of(10, 19, rows=30)
    source.put_blocking(envelope_of(segment))
    taken = source.get(SOON)
    assert taken is not None
    decode_apply(LAYOUTS, SEGMENT_BLOCKS, source, target, counts)(taken)
    events = target.get(SOON)
    assert events is not None
    assert (events.topic, events.key) == ("events.history", taken.key)
    decoded = decode_segment(events)
    assert decoded.name == decode_logs(segment, LAYOUTS).name
    assert (decoded.name.from_block, decoded.name.to_block) == (10, 19)
    assert counts.logs == 30
    aggregates = target.get(SOON)
    assert aggregates is not None
    assert (aggregates.topic, aggregates.key) == ("aggregates.history", taken.key)
    made = decode_segment(aggregates)
    assert made.name == aggregate_events(decode_logs(segment, LAYOUTS)).name
    # Done only after both wait in the next queue: a drain never misses them.
    assert (source.undone, target.undone) == (0, 2)


# --- reorg ---------------------------------------------------------------------------------------


def ref(number: int, branch: str = "a") -> BlockRef:
    return BlockRef(number, f"{number}{branch}".encode().ljust(32, b"\0"))


def seen(block: BlockRef, parent: BlockRef) -> Envelope:
    value = HeadObserved(1337, block.number, block.hash, parent.hash, 0, 0, "node")
    headers = {"lane": "head", "schema": "HeadObserved"}
    return Envelope("raw.heads", b"", encode_head_observed(value), headers)


def final(block: BlockRef) -> Envelope:
    value = FinalityAdvanced(1337, "finalized", block.number, block.hash, 0)
    headers = {"lane": "head", "schema": "FinalityAdvanced"}
    return Envelope("raw.heads", b"", encode_finality_advanced(value), headers)


def test_the_reorg_stage_publishes_what_is_applied() -> None:
    source, updates = queue(), list[ForkUpdate]()
    stage = ReorgStage(from_blocks(1337, ref(5)), source, updates.append)
    words = [
        seen(ref(6), ref(5)),
        seen(ref(7), ref(6)),
        seen(ref(7, "b"), ref(6)),
        seen(ref(8, "b"), ref(7, "b")),
        final(ref(6)),
    ]
    for word in words:
        source.put_blocking(word)
        taken = source.get(SOON)
        assert taken is not None
        stage.apply(taken)
    assert source.undone == 0
    assert stage.state.head == ref(8, "b")
    assert updates[-1].head == ref(8, "b")
    assert updates[-1].finalized == ref(6)
    assert {gone for update in updates for gone in update.removed} == {ref(7)}


def test_a_halt_stops_the_pipeline_with_its_error() -> None:
    source, failures = queue(), Failures()
    reorg = ReorgStage(from_blocks(1337, ref(5)), source, lambda _: None)
    stage = Stage("reorg", source, reorg.apply, failures)
    stage.start()
    words = [seen(ref(6), ref(5)), seen(ref(7), ref(6)), final(ref(7))]
    # A heavier branch from below the finalized block.
    words += [seen(ref(6, "b"), ref(5)), seen(ref(7, "b"), ref(6, "b"))]
    words += [seen(ref(8, "b"), ref(7, "b"))]
    for word in words:
        source.put_blocking(word)
    assert stage.join(SOON)
    assert failures.first is not None
    assert getattr(failures.first, "code", "") == "HR-3001"


# --- sink ----------------------------------------------------------------------------------------


class KeptLoads:
    """Stands for the writer: keeps what it is to write."""

    def __init__(self) -> None:
        self.together: list[list[SegmentName]] = []
        self.apart: list[list[SegmentName]] = []
        self.fails: Exception | None = None

    def write(self, segments: Sequence[Segment]) -> Load:
        self._fail()
        self.together.append([segment.name for segment in segments])
        return self._load(segments, len(self.together))

    def write_apart(self, segments: Sequence[Segment]) -> list[Load]:
        self._fail()
        self.apart.append([segment.name for segment in segments])
        return [self._load([segment], 100 + at) for at, segment in enumerate(segments)]

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails

    @staticmethod
    def _load(segments: Sequence[Segment], load_id: int) -> Load:
        rows = tuple(
            LedgerRow(
                one.name.stream,
                one.name.lane,
                one.name.from_block,
                one.name.to_block,
                one.name.last_hash,
                one.name.content_version,
                1,
                load_id,
                ("logs",),
                (1,),
                (1,),
            )
            for one in segments
        )
        return Load(load_id, segments[0].name.stream, segments[0].name.lane, 0, rows, 1)


class Sink:
    """A sink stage with a clock that is told the time."""

    def __init__(self, durable: set[SegmentName] | None = None) -> None:
        self.now = 0.0
        self.source = queue()
        self.writer = KeptLoads()
        self.told: list[list[SegmentName]] = []
        self.times = HeadTimes()
        self.stage = SinkStage(
            self.source,
            cast("Writer", self.writer),
            Batcher[Arrival](PARTITION_BLOCKS, BatchLimits(age_seconds_max=2.0)),
            durable or set(),
            lambda rows: self.told.append([row.name(1337) for row in rows]),
            lambda: self.now,
            PARTITION_BLOCKS,
            self.times,
        )

    def put(self, *segments: Any) -> None:
        for segment in segments:
            self.source.put_blocking(envelope_of(segment))

    def turn(self) -> None:
        """What the stage's thread does: one envelope, then idle."""
        taken = self.source.get(0.0)
        if taken is not None:
            self.stage.apply(taken)
        self.stage.idle()


def test_history_waits_for_others_of_its_load_until_it_is_due() -> None:
    sink = Sink()
    segments = [logs_of(0, 9), logs_of(10, 19), logs_of(100, 109)]
    sink.put(*segments)
    for _ in range(3):
        sink.turn()
    assert sink.writer.together == []
    assert sink.source.undone == 3
    sink.now = 2.5
    sink.turn()
    names = [segment.name for segment in segments]
    assert sink.writer.together == [names[:2], names[2:]]
    assert sink.told == [names[:2], names[2:]]
    assert sink.source.undone == 0
    assert sink.stage.loads == 2
    assert sink.stage.counts.logs == sum(segment.logs.rows for segment in segments)


def test_when_nothing_more_comes_what_waits_is_written_at_once() -> None:
    sink = Sink()
    sink.put(logs_of(0, 9), logs_of(10, 19))
    sink.stage.hurry.set()
    sink.turn()
    assert sink.writer.together == []
    sink.turn()
    assert [len(batch) for batch in sink.writer.together] == [2]


def test_a_durable_segment_is_dropped_and_taken_again_once_forgotten() -> None:
    segment = logs_of(0, 9)
    sink = Sink({segment.name})
    sink.put(segment)
    sink.turn()
    assert sink.source.undone == 0
    sink.now = 5.0
    sink.turn()
    assert sink.writer.together == []
    sink.stage.forget([segment.name])
    sink.put(segment)
    sink.turn()
    sink.now = 10.0
    sink.turn()
    assert sink.writer.together == [[segment.name]]
    # Loaded by now, so a repetition is dropped.
    sink.put(segment)
    sink.turn()
    sink.now = 20.0
    sink.turn()
    assert len(sink.writer.together) == 1
    assert sink.stage.durable_names() == [segment.name]


def test_another_hash_at_the_same_height_is_another_segment() -> None:
    segment = logs_of(5, 5)
    sink = Sink({segment.name})
    sink.put(replace(segment, name=replace(segment.name, last_hash=b"o" * 32)))
    sink.turn()
    assert [[name.last_hash for name in names] for names in sink.writer.apart] == [[b"o" * 32]]


def test_head_blocks_that_wait_together_share_their_inserts() -> None:
    sink = Sink()
    segments = [*(logs_of(n, n) for n in range(97, 103)), blocks_of(97, 97)]
    sink.put(*segments)
    for _ in segments:
        sink.turn()
    names = [segment.name for segment in segments]
    # One stream and partition at a time, each block a load of its own.
    assert sink.writer.apart == [names[:3], names[3:6], names[6:]]
    assert sink.told == [[name] for name in names]
    assert sink.writer.together == []
    assert sink.source.undone == 0


def test_one_head_block_does_not_wait() -> None:
    sink = Sink()
    segment = logs_of(7, 7)
    sink.put(segment)
    sink.turn()
    assert sink.writer.apart == [[segment.name]]
    assert sink.times.observed_at_ms(segment.name.last_hash) == segment.observed_at_ms
    assert sink.times.observed_at_ms(b"?" * 32) is None


def test_the_times_of_the_newest_heads_are_kept() -> None:
    times = HeadTimes()
    for at in range(OBSERVED_MAX + 10):
        times.remember(at.to_bytes(32, "big"), at)
    kept = [times.observed_at_ms(at.to_bytes(32, "big")) for at in range(OBSERVED_MAX + 10)]
    assert kept == [None] * 10 + list(range(10, OBSERVED_MAX + 10))


def test_no_more_heads_share_their_inserts_than_the_bound() -> None:
    sink = Sink()
    sink.put(*(logs_of(n, n, rows=1) for n in range(HEADS_MAX + 3)))
    for _ in range(HEADS_MAX + 3):
        sink.turn()
    assert [len(names) for names in sink.writer.apart] == [HEADS_MAX, 3]


def test_what_could_not_be_written_is_neither_done_nor_durable() -> None:
    sink, failures = Sink(), Failures()
    error = WriteAbandoned(stream="logs", from_block=7, to_block=7, attempts=10, last="disk full")
    sink.writer.fails = error
    stage = Stage("sink", sink.source, sink.stage.apply, failures, sink.stage.idle)
    stage.start()
    sink.put(logs_of(7, 7))
    assert stage.join(SOON)
    assert failures.first is error
    assert sink.source.undone == 1
    assert sink.stage.durable_names() == []
    assert sink.told == []
