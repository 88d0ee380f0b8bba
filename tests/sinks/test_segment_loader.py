"""A message that the tables refuse stays refused until its letter is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from schemas.errors import HeadraceError
from schemas.errors_kafka import DeliveryFailed
from schemas.errors_sinks import ColumnsMismatch
from sinks.batcher import Batcher
from sinks.known_segments import KnownSegments
from sinks.offsets import Place
from sinks.segment_loader import SegmentLoader
from sinks.writer import Writer
from tests.sinks.segments_of import logs_of


class Nothing:
    """A ledger and a canon that know nothing."""

    generation = 1

    def refresh(self) -> None:
        pass

    def holds(self, _name: object, _again: object) -> bool:
        return False


class Refusing:
    """A writer of tables that take nothing."""

    generation = 1

    def write(self, _segments: Sequence[object]) -> Any:
        raise ColumnsMismatch(table="logs", detail="strange")


def test_a_letter_that_could_not_be_kept_is_written_again() -> None:
    kept: list[Place] = []
    failures = [DeliveryFailed(topic="dead_letters", key="", reason="none")]

    def refuse(place: Place, _error: HeadraceError) -> None:
        if failures and place.offset == 1:
            raise failures.pop()
        kept.append(place)

    loader = SegmentLoader(
        cast("Writer", Refusing()),
        Batcher(100),
        cast("KnownSegments", Nothing()),
        100,
        on_done=lambda _place: None,
        on_refused=refuse,
        clock=lambda: 0.0,
    )
    places = [Place("t", 0, offset, 1) for offset in range(3)]
    for place in places:
        loader.take(logs_of(0, 9), place)
    with pytest.raises(DeliveryFailed):
        loader.write(hurry=True)
    assert (kept, loader.waiting) == (places[:1], 1)

    loader.write(hurry=True)

    assert (kept, loader.waiting) == (places, 0)
