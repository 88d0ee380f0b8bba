from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import ColumnBlock
from schemas.segments import Lane, LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Verification, empty_block
from sinks.batcher import Batch, Batcher, BatchLimits
from sinks.load_block import block_bytes
from tests.sinks.random_columns import random_block

BLOCK = random_block(LOGS, 10, 1)
SIZE = block_bytes(BLOCK)


def segment(
    from_block: int, lane: Lane = "history", logs: ColumnBlock = BLOCK, version: str = "v"
) -> LogSegment:
    to_block = from_block + 9 if lane == "history" else from_block
    name = SegmentName(1, "logs", lane, from_block, to_block, bytes(32), version)
    headers = empty_block(HEADER_REFS)
    return LogSegment(name, 0, Verification.receipts, (), (), headers, logs)


def starts(batches: list[Batch[int]]) -> list[list[int]]:
    return [[each.name.from_block for each in batch.segments] for batch in batches]


def test_a_head_segment_goes_at_once_and_alone() -> None:
    batcher: Batcher[int] = Batcher(100)
    assert starts(batcher.add(segment(0), 1, 0.0)) == []
    assert starts(batcher.add(segment(7, "head"), 2, 0.0)) == [[7]]
    assert starts(batcher.flush()) == [[0]]


def test_rows_and_bytes_bound_a_batch() -> None:
    batcher: Batcher[int] = Batcher(1000, BatchLimits(rows_max=20, bytes_max=10**9))
    assert starts(batcher.add(segment(0), 1, 0.0)) == []
    assert starts(batcher.add(segment(10), 2, 0.0)) == [[0, 10]]
    batcher = Batcher(1000, BatchLimits(rows_max=10**9, bytes_max=int(SIZE * 2.5)))
    batcher.add(segment(0), 1, 0.0)
    batcher.add(segment(10), 2, 0.0)
    assert starts(batcher.add(segment(20), 3, 0.0)) == [[0, 10]]
    assert batcher.size_bytes == SIZE
    batcher = Batcher(1000, BatchLimits(bytes_max=SIZE // 2))
    assert starts(batcher.add(segment(0), 1, 0.0)) == [[0]]


def test_age_closes_a_batch_and_empty_segments_wait_too() -> None:
    batcher: Batcher[int] = Batcher(1000, BatchLimits(age_seconds_max=2.0))
    empty = empty_block(LOGS)
    assert batcher.next_due() is None
    batcher.add(segment(0, logs=empty), 1, 10.0)
    batcher.add(segment(10, logs=empty), 2, 11.0)
    assert batcher.next_due() == 12.0
    assert batcher.due(11.9) == []
    assert starts(batcher.due(12.0)) == [[0, 10]]
    assert batcher.next_due() is None


def test_the_same_blocks_proven_differently_are_no_batch() -> None:
    """One load of both would show their rows twice; of neighbours it may hold either."""
    batcher: Batcher[int] = Batcher(1000)
    assert batcher.add(segment(0, version="full"), 1, 0.0) == []
    assert batcher.add(segment(10, version="receipts"), 2, 0.0) == []
    assert starts(batcher.add(segment(0, version="receipts"), 3, 1.0)) == [[0, 10]]
    assert batcher.add(segment(10, version="full"), 4, 2.0) == []
    assert starts(batcher.due(16.0)) == [[0, 10]]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["history", "head"])), max_size=60),
    st.integers(1, 60),
)
def test_nothing_is_lost_or_doubled_and_no_batch_mixes(
    given_segments: list[tuple[int, Lane]], rows_max: int
) -> None:
    batcher: Batcher[int] = Batcher(100, BatchLimits(rows_max=rows_max))
    batches: list[Batch[int]] = []
    for token, (number, lane) in enumerate(given_segments):
        batches += batcher.add(segment(number * 10, lane), token, float(token))
        batches += batcher.due(float(token))
    batches += batcher.flush()
    assert sorted(token for batch in batches for token in batch.tokens) == list(
        range(len(given_segments))
    )
    assert batcher.size_bytes == 0
    for batch in batches:
        kinds = {(s.name.lane, s.name.from_block // 100) for s in batch.segments}
        assert len(kinds) == 1
        assert len(batch.segments) == len(batch.tokens)
        assert len({s.name.from_block for s in batch.segments}) == len(batch.segments)
        assert batch.segments[0].name.lane == "history" or len(batch.segments) == 1
