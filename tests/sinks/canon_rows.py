"""A canon row and the blocks it shows in, an AssertionError where the promise is broken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from schemas.segments import Stream
from sinks.canon_row import CanonRow, Reorg

Block = tuple[int, bytes]
"""Height and hash."""


def assert_whole(
    row: CanonRow, chain: Sequence[Block], stored: Mapping[Stream, Sequence[Block]]
) -> None:
    """Every stream shows every block of one chain once, from the floor to the head.

    Parameters
    ----------
    row
        What is shown.
    chain
        The ancestors of its head and the head itself, lowest first.
    stored
        The blocks of each stream that the row makes visible.
    """
    expected = [block for block in chain if block[0] >= row.floor]
    assert len(expected) == row.head.number - row.floor + 1
    for stream, visible in stored.items():
        assert Counter(visible) == Counter(expected), f"{stream} up to {row.head.number}"
    for mark in (row.safe, row.finalized):
        assert mark is None or (mark.number, mark.hash) in chain
    assert len(set(row.loads)) == len(row.loads)


def assert_follows(old: CanonRow, row: CanonRow) -> None:
    """Claims and rows are numbered upwards; what was shown below, or sealed, stays so."""
    assert (row.generation, row.seq) > (old.generation, old.seq)
    assert row.floor <= old.floor
    assert set(row.sealed) >= set(old.sealed)


def assert_removed(before: Sequence[Block], after: Sequence[Block], reorg: Reorg | None) -> None:
    """A reorg is told exactly where the head of `before` is not in `after`, with all that left.

    Both are what two rows show, one after the other, lowest block first.
    """
    assert (before[-1] in after) == (reorg is None)
    if reorg is not None:
        ancestor = reorg.ancestor
        if ancestor is not None:
            assert (ancestor.number, ancestor.hash) in before
            assert (ancestor.number, ancestor.hash) in after
        assert [(ref.number, ref.hash) for ref in reorg.removed] == [
            block for block in before[::-1] if block not in after
        ]


def assert_added(before: Sequence[Block], after: Sequence[Block], reorg: Reorg) -> None:
    """A reorg tells every block that joined, the lowest first."""
    assert [(ref.number, ref.hash) for ref in reorg.added] == [
        block for block in after if block not in before
    ]
