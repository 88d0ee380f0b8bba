"""What is acknowledged is covered, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ingest.backfill import SegmentRange
from ingest.checkpoint import Checkpoint, checkpoint_envelope
from ingest.coverage import Coverage
from schemas.codec import decode_ingest_checkpoint
from schemas.segments import BlockRef, BlockSpan, HeadObserved

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)


def ref(number: int, branch: str = "a") -> BlockRef:
    return BlockRef(number, f"{number}{branch}".encode().ljust(32, b"\0"))


def header(number: int, branch: str = "a", parent: str | None = None) -> HeadObserved:
    block, below = ref(number, branch), ref(number - 1, parent or branch)
    return HeadObserved(1, number, block.hash, below.hash, 0, 0, "node")


def checkpoint() -> Checkpoint:
    return Checkpoint(1, "v", "one")


def acknowledge(point: Checkpoint, number: int, branch: str = "a") -> None:
    point.acknowledge(number, number, ref(number, branch).hash, "head")


def covered(point: Checkpoint) -> tuple[BlockSpan, ...]:
    return point.coverage().spans


@given(SPANS, st.integers(0, 60), st.integers(0, 20))
def test_coverage_is_a_set_of_blocks(spans: list[tuple[int, int]], first: int, length: int) -> None:
    coverage, blocks = Coverage(), set[int]()
    for start, more in spans:
        new = set(range(start, start + more + 1))
        assert coverage.add(start, start + more) == bool(new - blocks)
        blocks |= new
    asked = set(range(first, first + length))
    assert coverage.holds(first, first + length - 1) == (asked <= blocks)
    assert coverage.count(first, first + length - 1) == len(asked & blocks)
    ends = [(span.from_block, span.to_block) for span in coverage.spans]
    assert {n for a, b in ends for n in range(a, b + 1)} == blocks
    assert all(b + 1 < a for (_, b), (a, _) in itertools.pairwise(ends))
    missing = list(coverage.missing(first, first + length, 5))
    grid = range(first - first % 5, first + length + 1, 5)
    wanted = [at for at in grid if at + 4 <= first + length]
    assert [one.from_block for one in missing] == [
        at for at in wanted if not set(range(at, at + 5)) <= blocks
    ]
    assert all(one == SegmentRange(one.from_block, one.from_block + 4) for one in missing)


def test_a_head_block_is_covered_once_a_final_one_descends_from_it() -> None:
    point = checkpoint()
    for number in (10, 11, 12):
        point.observe(header(number))
        acknowledge(point, number)
    assert covered(point) == ()
    point.finalize(ref(11))
    assert covered(point) == (BlockSpan(10, 11),)
    point.finalize(ref(12))
    assert covered(point) == (BlockSpan(10, 12),)
    assert point.finalized == ref(12)


def test_a_block_of_another_branch_is_never_covered() -> None:
    point = checkpoint()
    point.observe(header(10))
    point.observe(header(11, "b", parent="a"))
    point.observe(header(11))
    acknowledge(point, 11, "b")
    acknowledge(point, 10)
    point.finalize(ref(11))
    acknowledge(point, 11, "b")
    assert covered(point) == (BlockSpan(10, 10),)
    acknowledge(point, 11)
    assert covered(point) == (BlockSpan(10, 11),)


def test_history_is_covered_at_once() -> None:
    point = checkpoint()
    point.acknowledge(0, 9, ref(9).hash, "history")
    assert covered(point) == (BlockSpan(0, 9),)


def test_reached_counts_the_newest_branch_above_what_is_final() -> None:
    point = checkpoint()
    point.acknowledge(0, 9, ref(9).hash, "history")
    assert point.reached(0, 9)
    for number in (10, 11):
        point.observe(header(number))
    assert not point.reached(0, 11)
    acknowledge(point, 11)
    assert not point.reached(0, 11)
    acknowledge(point, 10)
    assert point.reached(0, 11)
    assert not point.reached(0, 12)
    point.observe(header(11, "b", parent="a"))
    assert not point.reached(0, 11)


def test_a_checkpoint_is_written_when_something_changed_and_reads_as_it_was() -> None:
    point = checkpoint()
    assert point.take(5) is None
    point.acknowledge(0, 9, ref(9).hash, "history")
    point.observe(header(20))
    point.took_request(3)
    written = point.take(5)
    assert written is not None
    assert point.take(6) is None
    point.put_back()
    assert point.take(5) == written
    other = Checkpoint(1, "v", "two")
    other.merge(decode_ingest_checkpoint(checkpoint_envelope(written).value))
    assert (covered(other), other.head) == ((BlockSpan(0, 9),), 20)
    assert other.take(7) is None


def test_two_ingesters_end_with_what_both_have_covered_and_fall_silent() -> None:
    one, two = checkpoint(), Checkpoint(1, "v", "two")
    one.acknowledge(0, 9, ref(9).hash, "history")
    two.acknowledge(20, 29, ref(29).hash, "history")
    for _ in range(3):
        for writer, reader in ((one, two), (two, one)):
            written = writer.take(0)
            if written is not None:
                reader.merge(written)
    assert covered(one) == covered(two) == (BlockSpan(0, 9), BlockSpan(20, 29))
    assert (one.take(1), two.take(1)) == (None, None)


def test_a_checkpoint_of_other_content_is_left_alone() -> None:
    point, other = checkpoint(), checkpoint()
    other.acknowledge(0, 9, ref(9).hash, "history")
    written = other.take(0)
    assert written is not None
    point.merge(replace(written, content_version="w"))
    assert covered(point) == ()
