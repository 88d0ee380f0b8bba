"""A message that the tables refuse stays refused until its letter is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.errors import HeadraceError
from schemas.errors_kafka import DeliveryFailed
from schemas.errors_sinks import ColumnsMismatch
from sinks.batcher import Batcher
from sinks.known_segments import KnownSegments
from sinks.offsets import Place
from sinks.segment_loader import SegmentLoader
from sinks.writer import Segment, Writer
from tests.sinks.segments_of import logs_of


class Nothing:
    """A ledger and a canon that know nothing."""

    generation = 1

    def refresh(self) -> None:
        pass

    def holds(self, _name: object, _again: object) -> bool:
        return False

    def add(self, _loaded: object) -> None:
        pass


class Remembering:
    """A writer that remembers what it was given as one load."""

    def __init__(self) -> None:
        self.generation = 1
        self.loads: list[list[tuple[int, str]]] = []

    def write(self, segments: Sequence[Segment]) -> Any:
        self.loads.append([(each.name.from_block, each.name.content_version) for each in segments])
        return SimpleNamespace(stream="logs")


class Refusing:
    """A writer of tables that take nothing."""

    generation = 1

    def write(self, _segments: Sequence[object]) -> Any:
        raise ColumnsMismatch(table="logs", detail="strange")


def test_segments_that_two_ingesters_proved_differently_are_loads_of_their_own() -> None:
    """Of one load all rows are shown: those of each block would be there twice."""
    writer, done = Remembering(), list[Place]()
    loader = SegmentLoader(
        cast("Writer", writer),
        Batcher(100),
        cast("KnownSegments", Nothing()),
        100,
        on_done=done.append,
        on_refused=lambda _place, error: pytest.fail(str(error)),
        clock=lambda: 0.0,
    )
    places = iter(Place("t", 0, offset, 1) for offset in range(6))
    for first in (0, 10, 20):
        for version in ("full", "receipts"):
            segment = logs_of(first, first + 9)
            name = replace(segment.name, content_version=version)
            loader.take(replace(segment, name=name), next(places))
    loader.write(hurry=True)
    assert sorted(load for loads in writer.loads for load in loads) == [
        (first, version) for first in (0, 10, 20) for version in ("full", "receipts")
    ]
    for load in writer.loads:
        assert len({first for first, _ in load}) == len(load)
    assert sorted(place.offset for place in done) == list(range(6))
    assert (loader.waiting, loader.counts.loads, len(writer.loads)) == (0, 2, 2)


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
