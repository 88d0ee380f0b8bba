"""What one endpoint said, step by step, and what follows: whether it counts, and which heads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.endpoint_view import EndpointView, Verdict
from ingest.head_answers import Has
from ingest.headwindow import HeadHeader
from ingest.limits import IngestLimits

LIMITS = replace(IngestLimits(), final_denied_polls=2, final_absent_seconds=60.0, rollback_polls=3)


@pytest.mark.parametrize(
    ("polls", "now", "verdict"),
    [
        ([], 0, "held"),
        ([(0, "same")], 0, "held"),
        ([(0, "unknown")], 0, "held"),
        # Another block at that height: doubted at once, denied when it is said twice in a row.
        ([(0, "other")], 0, "doubted"),
        ([(0, "other")], 9_999, "doubted"),
        ([(0, "other"), (1, "other")], 1, "denied"),
        ([(0, "other"), (1, "unknown"), (2, "other")], 2, "denied"),
        ([(0, "other"), (1, "same"), (2, "other")], 2, "doubted"),
        ([(0, "other"), (1, "absent"), (2, "other")], 2, "doubted"),
        ([(0, "other"), (1, "other"), (2, "same")], 2, "held"),
        # A head below it: a gateway's node that lags is back in time, a node set back is not.
        ([(0, "absent")], 0, "doubted"),
        ([(0, "absent"), (59, "absent")], 59, "doubted"),
        ([(0, "absent"), (60, "absent")], 60, "denied"),
        ([(0, "absent"), (30, "unknown"), (60, "absent")], 60, "denied"),
        ([(0, "absent"), (30, "same"), (60, "absent")], 60, "doubted"),
        ([(0, "absent"), (60, "other")], 60, "doubted"),
        ([(0, "absent"), (60, "other"), (61, "other")], 61, "denied"),
    ],
)
def test_whether_an_endpoint_holds_the_final_block(
    polls: list[tuple[float, Has]], now: float, verdict: Verdict
) -> None:
    view = EndpointView()
    for at, has in polls:
        view = view.saw_final(has, at)
    assert view.verdict(now, LIMITS) == verdict


def head(number: int) -> HeadHeader:
    return HeadHeader(number, bytes([number]) * 32, bytes([number - 1]) * 32)


@pytest.mark.parametrize(
    ("named", "counts"),
    [
        # (height, is an ancestor of the head before, that head is gone)
        ([(9, False, False)], [True]),
        ([(8, False, False)], [False]),
        ([(7, True, False)] * 4, [False] * 4),
        ([(7, True, True)] * 3, [False, False, True]),
        ([(7, True, True), (6, True, True), (7, True, True)], [False] * 3),
        ([(7, True, True), (7, True, True), (8, False, False), (7, True, True)], [False] * 4),
        (
            [(7, True, True), (7, True, False), (7, True, True), (7, True, True)],
            [False] * 3 + [True],
        ),
        ([(7, True, True), (7, True, True), (9, False, False)], [False, False, True]),
    ],
)
def test_which_heads_count(named: list[tuple[int, bool, bool]], counts: list[bool]) -> None:
    view = EndpointView(head=head(8))
    found = []
    for number, is_ancestor, gone in named:
        view, new = view.saw_head(head(number), is_ancestor=is_ancestor, gone=gone, limits=LIMITS)
        found.append(new)
    assert found == counts


def test_a_head_is_taken_once_it_is_published() -> None:
    view, new = EndpointView().saw_head(head(8), is_ancestor=False, gone=False, limits=LIMITS)
    assert new
    assert view.head is None, "it is named again when it could not be connected"
    assert view.took(head(8)).head == head(8)
