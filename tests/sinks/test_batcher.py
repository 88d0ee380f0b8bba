from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import ColumnBlock
from schemas.segments import Lane, LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Verification, empty_block
from sinks.batcher import BESIDE_MAX, Batch, Batcher, BatchLimits
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


def test_the_same_blocks_proven_differently_wait_side_by_side() -> None:
    """One load of both would show their rows twice."""
    batcher: Batcher[int] = Batcher(1000)
    assert batcher.add(segment(0, version="full"), 1, 0.0) == []
    assert batcher.add(segment(10, version="receipts"), 2, 1.0) == []
    assert batcher.add(segment(0, version="receipts"), 3, 2.0) == []
    assert batcher.add(segment(10, version="full"), 4, 3.0) == []
    assert batcher.size_bytes == 4 * SIZE
    assert batcher.next_due() == 15.0
    assert [batch.tokens for batch in batcher.due(15.5)] == [(1, 4)]
    assert (batcher.size_bytes, batcher.next_due()) == (2 * SIZE, 16.0)
    assert [batch.tokens for batch in batcher.due(16.0)] == [(2, 3)]
    assert batcher.next_due() is None


def test_the_same_blocks_of_one_version_wait_side_by_side() -> None:
    """Ingesters that are not of one mind about the chain."""
    batcher: Batcher[int] = Batcher(1000)
    for token, first in enumerate((0, 0, 10, 10, 0)):
        assert batcher.add(segment(first), token, 0.0) == []
    assert [batch.tokens for batch in batcher.flush()] == [(0, 2), (1, 3), (4,)]
    assert batcher.size_bytes == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [0, 1, 20])
def test_two_ingesters_side_by_side_cost_twice_the_loads_of_one(drift: int, seed: int) -> None:
    """Each one's loads are those that it would have alone: none overlaps another in part."""
    of_each, rows_max = 60, 200
    given_segments = [(number, version) for number in range(of_each) for version in ("full", "low")]
    rng = random.Random(seed)
    late = {one: one[0] + rng.random() * drift for one in given_segments}
    # Neither comes out of its own order.
    given_segments.sort(key=lambda one: (max(late[n, one[1]] for n in range(one[0] + 1)), one[0]))
    batcher: Batcher[int] = Batcher(1000, BatchLimits(rows_max=rows_max))
    batches: list[Batch[int]] = []
    for token, (number, version) in enumerate(given_segments):
        batches += batcher.add(segment(number * 10, version=version), token, 0.0)
    batches += batcher.flush()
    assert sorted(token for batch in batches for token in batch.tokens) == list(range(2 * of_each))
    grid = [list(range(first, first + 200, 10)) for first in range(0, 600, 200)]
    for version in ("full", "low"):
        own = [batch for batch in batches if batch.segments[0].name.content_version == version]
        assert starts(own) == grid
        assert {each.name.content_version for one in own for each in one.segments} == {version}


def test_batches_side_by_side_hold_bounded_bytes_together() -> None:
    batcher: Batcher[int] = Batcher(1000, BatchLimits(bytes_max=int(SIZE * 2.5)))
    taken: list[int] = []
    for token in range(20):
        closed = batcher.add(segment(token % 2 * 10, version=f"v{token % 7}"), token, 0.0)
        taken += [each for batch in closed for each in batch.tokens]
        assert batcher.size_bytes <= BESIDE_MAX * SIZE * 2.5
    taken += [each for batch in batcher.flush() for each in batch.tokens]
    assert sorted(taken) == list(range(20))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), st.sampled_from(["history", "head"]), st.sampled_from(["v", "w"])
        ),
        max_size=60,
    ),
    st.integers(1, 60),
)
def test_nothing_is_lost_or_doubled_and_no_batch_mixes(
    given_segments: list[tuple[int, Lane, str]], rows_max: int
) -> None:
    batcher: Batcher[int] = Batcher(100, BatchLimits(rows_max=rows_max))
    batches: list[Batch[int]] = []
    for token, (number, lane, version) in enumerate(given_segments):
        batches += batcher.add(segment(number * 10, lane, version=version), token, float(token))
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
