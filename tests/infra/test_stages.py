"""The embedded stages: what each takes and forwards, and that a failure stops the pipeline."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from infra.queues import ByteQueue, QueueClosed
from infra.sink_stage import decode_segment
from infra.stages import Counts, Failures, ReorgStage, Router, Stage, decode_apply
from infra.turns import Turns
from processors.abi import build_layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from processors.reorg import from_blocks
from schemas.codec import (
    encode_finality_advanced,
    encode_head_observed,
)
from schemas.columns import ColumnBlock
from schemas.errors_sinks import WriteAbandoned
from schemas.segments import (
    BlockRef,
    Envelope,
    FinalityAdvanced,
    ForkUpdate,
    HeadObserved,
)
from schemas.tables import AGGREGATE_TABLES, CORE_TABLES, Table
from sinks.checksum import block_checksums
from sinks.load_block import load_block
from sinks.native import block_parts
from sinks.writer import table_blocks
from tests.infra.stage_inputs import SEGMENT_BLOCKS, SOON, envelope_of, queue, until
from tests.processors.log_rows import from_rpc, log_segment, read_logs
from tests.sinks.segments_of import logs_of

LAYOUTS = build_layouts()


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
        found: list[str] = []
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
    decode_apply(LAYOUTS, SEGMENT_BLOCKS, source, target, counts, Turns())(taken)
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


def test_the_decode_stage_lets_others_compute_while_there_is_no_room() -> None:
    source, target, turns = queue(), ByteQueue("full", 1), Turns()
    target.put_blocking(Envelope("events.history", b"", b"1", {"lane": "history"}))
    source.put_blocking(envelope_of(logs_of(10, 19, rows=30)))
    apply = decode_apply(LAYOUTS, SEGMENT_BLOCKS, source, target, Counts(), turns)
    stage = Stage("decode", source, apply, Failures(), turns=turns)
    stage.start()
    until(lambda: source.bytes_waiting == 0)
    for _ in range(3):
        with turns.take():
            assert target.undone < 3
        assert target.get(SOON) is not None
        target.done()
    source.close()
    assert stage.join(SOON)


def native(table: Table, block: ColumnBlock) -> tuple[bytes, int]:
    """The bytes that one load inserts into a table, and their checksum."""
    parts = block_parts(load_block(table, [block], 7))
    (checksum,) = block_checksums(table, [block])
    return b"".join(memoryview(part).tobytes() for part in parts), checksum


def test_a_segment_at_hand_loads_byte_for_byte_what_its_message_does(chaindata: Path) -> None:
    tables = {table.name: table for table in (*CORE_TABLES, *LAYOUTS.tables)}
    paths = sorted((chaindata / "blocks").glob("*/*.json.gz"))
    rows = [from_rpc(log) for path in paths for log in read_logs(path)]
    logs = log_segment([{**row, "log_index": i} for i, row in enumerate(rows)])
    source, target = ByteQueue("source", 1 << 30), ByteQueue("target", 1 << 30)
    source.put_blocking(envelope_of(logs))
    taken = source.get(SOON)
    assert taken is not None
    decode_apply(LAYOUTS, SEGMENT_BLOCKS, source, target, Counts(), Turns())(taken)
    loaded = set()
    for envelope in (target.get(SOON), target.get(SOON)):
        assert envelope is not None
        at_hand, read = decode_segment(envelope), decode_segment(replace(envelope, segment=None))
        assert at_hand is envelope.segment
        assert read is not at_hand
        assert (at_hand.name, at_hand.observed_at_ms) == (read.name, read.observed_at_ms)
        blocks, others = table_blocks(at_hand), table_blocks(read)
        assert blocks.keys() == others.keys()
        for name, block in blocks.items():
            assert block.rows == others[name].rows
            if block.rows:
                assert native(tables[name], block) == native(tables[name], others[name])
                loaded.add(name)
    assert {"erc20_transfers", "erc1155_transfers", "decode_failures"} < loaded
    assert {table.name for table in AGGREGATE_TABLES} < loaded


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
