"""Ranges of blocks in, which of a range is covered and which grid segments are missing out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from ingest.backfill import SegmentRange
from schemas.segments import BlockSpan


class Coverage:
    """A set of blocks, as spans that neither overlap nor touch."""

    def __init__(self, spans: Iterable[BlockSpan] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for span in spans:
            self.add(span.from_block, span.to_block)

    @property
    def spans(self) -> tuple[BlockSpan, ...]:
        """The blocks, in order."""
        return tuple(map(BlockSpan, self._first, self._last))

    @property
    def lowest(self) -> int | None:
        """The lowest block; None where there is none."""
        return self._first[0] if self._first else None

    def add(self, first: int, last: int) -> bool:
        """Take blocks `first` to `last` in; whether any of them is new."""
        if self.holds(first, last):
            return False
        start = bisect_left(self._last, first - 1)
        stop = bisect_right(self._first, last + 1)
        if start < stop:
            first = min(first, self._first[start])
            last = max(last, self._last[stop - 1])
        self._first[start:stop] = [first]
        self._last[start:stop] = [last]
        return True

    def holds(self, first: int, last: int) -> bool:
        """Whether all of the blocks `first` to `last` are in."""
        return self.end_of(first) >= last

    def end_of(self, first: int) -> int:
        """The last block up to which all from `first` on are in; one below it where it is not."""
        at = bisect_right(self._first, first) - 1
        return self._last[at] if at >= 0 and self._last[at] >= first else first - 1

    def count(self, first: int, last: int) -> int:
        """How many of the blocks `first` to `last` are in."""
        pairs = zip(self._first, self._last, strict=True)
        return sum(max(0, min(b, last) - max(a, first) + 1) for a, b in pairs)

    def missing(self, first: int, last: int, segment_blocks: int) -> Iterator[SegmentRange]:
        """The grid segments from `first` to `last` of which any block is not in, ascending."""
        start = first - first % segment_blocks
        while start + segment_blocks - 1 <= last:
            end = self.end_of(start)
            if end >= start + segment_blocks - 1:
                start = end + 1 - (end + 1) % segment_blocks
                continue
            yield SegmentRange(start, start + segment_blocks - 1)
            start += segment_blocks
