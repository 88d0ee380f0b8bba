"""Publishers that are away, hear late words and start again amid doubts in; legal chains out."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sinks.canon_storms import DELIVERIES, FLOORS, Storm

ENDS = len(FLOORS) * len(DELIVERIES)
FOUND = (689, 1058, 1123, 1131, 3004)
"""Seeds that once showed a wrong head or ancestor, two branches, or less than what joined."""


@pytest.mark.parametrize("seed", [*range(14 * ENDS), *FOUND])
def test_every_row_of_a_storm_shows_one_legal_chain(seed: int) -> None:
    print("seed", seed)
    storm = Storm(seed)
    storm.run(400)
    storm.settle()


def test_folds_of_blocks_that_were_proven_differently_stand_in_storms() -> None:
    parts = 0
    for seed in range(2 * ENDS):
        print("seed", seed)
        storm = Storm(seed, mixed=True)
        storm.run(400)
        storm.settle()
        parts += storm.parts
    assert parts > 50, "parts of segments, each a piece of its own"


def test_storms_reach_what_they_are_for() -> None:
    reached: Counter[str] = Counter()
    for seed in range(2 * ENDS):
        storm = Storm(seed)
        storm.run(400)
        for name in ("publishers", "absences", "bursts", "folds", "reorgs", "seals", "doubts"):
            reached[name] += getattr(storm, name)
    assert min(reached[name] for name in ("publishers", "absences", "bursts", "folds")) > 50
    assert min(reached["reorgs"], reached["seals"], reached["doubts"]) > 9, reached
