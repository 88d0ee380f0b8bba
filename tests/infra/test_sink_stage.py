"""The sink's stage: what it loads together, what it drops, whose times it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from infra.sink_stage import HEADS_MAX, OBSERVED_MAX, Arrival, HeadTimes, SinkStage
from infra.stages import Failures, Stage
from schemas.errors_sinks import WriteAbandoned
from schemas.segments import (
    SegmentName,
)
from sinks.batcher import Batcher, BatchLimits
from sinks.ledger import LedgerRow
from sinks.writer import Load, Segment, Writer
from tests.infra.stage_inputs import PARTITION_BLOCKS, SOON, envelope_of, queue
from tests.sinks.segments_of import blocks_of, logs_of


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
