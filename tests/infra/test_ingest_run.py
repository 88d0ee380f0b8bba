"""What a run fetches, given what is visible, final and wanted."""

from __future__ import annotations

from typing import Any

import pytest

from infra.ingest_run import GENESIS_PARENT, IngestRun, Target
from ingest.headwindow import HeadHeader
from schemas.chains import load_chains
from schemas.segments import BlockRef
from sinks.canon_row import CanonRow

FACTS = load_chains()["local"].resized(10, 100)


def ref(number: int) -> BlockRef:
    return BlockRef(number, number.to_bytes(32, "big"))


def row(floor: int, head: int, final: int | None) -> CanonRow:
    return CanonRow(1, 1, floor, ref(head), None, None if final is None else ref(final), (), ())


class Source:
    facts = FACTS
    chain_id = 1337


class Stored:
    """Stands for the storage: visible headers of a chain."""

    def __init__(self, headers: list[HeadHeader]) -> None:
        self.headers = headers

    def visible_headers(self, from_block: int) -> list[HeadHeader]:
        return [header for header in self.headers if header.number >= from_block]


def a_run(
    target: Target, visible: CanonRow | None = None, headers: list[HeadHeader] | None = None
) -> Any:
    unused: Any = None
    source: Any = Source()
    storage: Any = Stored(headers or [])
    return IngestRun(
        source,
        unused,
        storage,
        unused,
        target,
        begin_head=lambda _: None,
        tell_fork=lambda _: None,
        visible=lambda: visible,
    )


def header(number: int, parent: bytes | None = None) -> HeadHeader:
    before = (number - 1).to_bytes(32, "big") if number else bytes(32)
    return HeadHeader(number, ref(number).hash, before if parent is None else parent)


def starts(run: Any, end: int) -> list[int]:
    ranges = list(run.missing(end))
    assert all(one.to_block == one.from_block + 9 for one in ranges)
    return [one.from_block for one in ranges]


@pytest.mark.parametrize(
    ("first", "finalized", "to_block", "end"),
    [
        (50, 57, None, -1),
        (49, 57, None, 49),
        (58, 57, None, -1),
        (313, 256, 320, -1),
        (252, 256, 258, -1),
        (240, 256, 258, 249),
        (249, 256, None, 249),
    ],
)
def test_no_history_is_wanted_where_a_run_begins_above_it(
    first: int, finalized: int, to_block: int | None, end: int
) -> None:
    run = a_run(Target(first, to_block))
    assert run.history_end(finalized) == end
    assert bool(starts(run, run.history_end(finalized))) == (end >= 0)


def test_history_below_a_visible_floor_stays_wanted() -> None:
    assert a_run(Target(60, None), row(21, 64, None)).history_end(57) == 49


@pytest.mark.parametrize(
    ("finalized", "to_block", "end"),
    [
        (-1, None, -1),
        (8, None, -1),
        (9, None, 9),
        (18, None, 9),
        (57, None, 49),
        (57, 23, 29),
        (57, 29, 29),
        (57, 30, 39),
        (25, 23, 19),
    ],
)
def test_history_ends_with_the_last_whole_segment_that_is_final_and_wanted(
    finalized: int, to_block: int | None, end: int
) -> None:
    assert a_run(Target(0, to_block)).history_end(finalized) == end


def test_where_nothing_is_visible_whole_segments_from_the_first_block_are_missing() -> None:
    assert starts(a_run(Target(0, None)), 29) == [0, 10, 20]
    assert starts(a_run(Target(17, None)), 29) == [10, 20]
    assert starts(a_run(Target(17, None)), -1) == []


def test_what_is_visible_and_final_is_not_missing() -> None:
    assert starts(a_run(Target(0, None), row(0, 34, 29)), 59) == [30, 40, 50]
    # Block 25 is final, its segment is not as a whole.
    assert starts(a_run(Target(0, None), row(0, 34, 25)), 39) == [20, 30]
    # Final beyond the visible head does not make blocks visible.
    assert starts(a_run(Target(0, None), row(0, 24, 24)), 39) == [20, 30]
    assert starts(a_run(Target(0, None), row(0, 24, None)), 29) == [0, 10, 20]


def test_a_lower_first_block_asks_for_what_lies_before() -> None:
    assert starts(a_run(Target(7, None), row(33, 59, 59)), 59) == [0, 10, 20]


def test_a_higher_first_block_leaves_no_hole_behind_what_is_visible() -> None:
    assert starts(a_run(Target(80, None), row(0, 34, 29)), 89) == [30, 40, 50, 60, 70, 80]


def test_what_this_run_has_sent_is_not_missing_again() -> None:
    run = a_run(Target(0, None))
    run._sent_to = 19
    assert starts(run, 39) == [20, 30]


async def test_the_head_stands_on_the_block_below_and_on_what_is_visible_above() -> None:
    run = a_run(Target(0, None), headers=[header(number) for number in range(9, 14)])
    assert await run._known(10) == [header(number) for number in range(9, 14)]
    assert await a_run(Target(0, None))._known(0) == [GENESIS_PARENT]


async def test_visible_blocks_that_do_not_link_are_not_known() -> None:
    broken = [header(9), header(10), header(11, b"o" * 32), header(12)]
    assert await a_run(Target(0, None), headers=broken)._known(10) == broken[:2]
