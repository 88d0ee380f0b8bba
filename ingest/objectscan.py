"""JSON objects of one sort in, the places of their values out, without an object for any of them.

A node writes objects in few ways: the same keys in the same order, with the same characters between
two values. Each way is a layout (ingest/objectlayout.py), learnt from one object. Objects that may
be written so are compared with it, all at once and byte for byte but for the values. Text that
is not written so is no error here: it is read the slower way (ingest/wire.py), which names what is
wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.objectlayout import WINDOW, Irregular, Layout, Shape, Stack, learn, stack

Ints = npt.NDArray[np.int64]
"""Positions in the text, or numbers of quotes."""
Mask = npt.NDArray[np.bool_]

PAD_BEFORE, PAD_BEHIND = b"0" * 64, b" " * WINDOW
"""What stands around the objects in a text, so that looking beyond one never leaves the text."""
_TURNS_MAX = 12
"""Layouts of one mark that are tried."""
_KEPT_PER_MARK, _KEPT_MAX = 4, 512
_kept: dict[tuple[Shape, int], tuple[Layout, ...]] = {}
"""Layouts learnt before. What they say is compared all the same, so none needs to be true."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where the values of n objects stand."""

    starts: Ints
    """int64[n, texts]: the first digit of each hex text, behind its 0x."""
    ends: Ints
    """int64[n, texts]: its closing quote."""
    given: Mask
    """bool[n, texts]: False where there is none."""
    layouts: list[Layout]
    """The layouts that the objects have; they hold what is the same in all objects of one."""
    layout: Ints
    """int64[n]: which of them each object has."""
    holes: Ints
    """int64[2, n]: where the inside of the array `Shape.hole` begins and ends."""


def locate(
    text: bytes, quotes: Ints, begins: Ints, ends: Ints, marks: Ints, shape: Shape
) -> Located:
    """Find the values of objects.

    Parameters
    ----------
    text : bytes
        Valid JSON objects without backslashes, between `PAD_BEFORE` and `PAD_BEHIND`.
    quotes : int64
        Places of all quotes in it, ascending.
    begins, ends : int64[n]
        Where each object begins and ends.
    marks : int64[n]
        Any numbers that objects of one layout share, mostly.
    shape : Shape
        What is wanted of them.

    Raises
    ------
    Irregular
        One is not written as regularly as it has to be.
    """
    return _Scan(text, quotes, begins, ends, shape).locate(marks)


class _Scan:
    def __init__(self, text: bytes, quotes: Ints, begins: Ints, ends: Ints, shape: Shape) -> None:
        count = len(begins)
        self.text, self.quotes, self.shape = text, quotes, shape
        self.begins, self.ends = begins, ends
        self.known: dict[int, tuple[Layout, ...]] = {}
        self.first: Ints = np.searchsorted(quotes, begins)
        self.behind: Ints = np.searchsorted(quotes, ends)
        self.found = Located(
            np.zeros((count, len(shape.texts)), np.int64),
            np.zeros((count, len(shape.texts)), np.int64),
            np.zeros((count, len(shape.texts)), np.bool_),
            [],
            np.zeros(count, np.int64),
            np.zeros((2, count), np.int64),
        )

    def locate(self, marks: Ints) -> Located:
        left = np.arange(len(self.begins))
        for turn in range(_TURNS_MAX):
            if not len(left):
                return self.found
            left = left[~self.turn(left, marks[left], turn)]
        raise Irregular

    def turn(self, rows: Ints, marks: Ints, turn: int) -> Mask:
        """Compare objects with one layout for each mark; which of them are written so."""
        numbers = {mark: number for number, mark in enumerate(sorted({*marks.tolist()}))}
        layouts = [self.layout(rows, marks, mark, turn) for mark in numbers]
        which = np.fromiter(map(numbers.__getitem__, marks.tolist()), np.int64, len(marks))
        fits = self.compare(rows, which, layouts)
        if turn:
            for number in {*which[fits].tolist()}:
                self.keep(list(numbers)[number], layouts[number])
        return fits

    def layout(self, rows: Ints, marks: Ints, mark: int, turn: int) -> Layout:
        """The layout to compare the objects of a mark with: one known, or that of the first."""
        known = self.known.setdefault(mark, tuple(_kept.get((self.shape, mark), ())))
        if turn < len(known):
            return known[turn]
        row = int(rows[int(np.argmax(marks == mark))])
        layout = learn(self.text[int(self.begins[row]) : int(self.ends[row])], self.shape)
        self.keep(mark, layout)
        return layout

    def keep(self, mark: int, layout: Layout) -> None:
        """Let a layout be the first to be tried next time."""
        if len(_kept) >= _KEPT_MAX:
            _kept.clear()
        kept = _kept.get((self.shape, mark), ())
        others = [other for other in kept if other is not layout]
        _kept[self.shape, mark] = (layout, *others[: _KEPT_PER_MARK - 1])

    def compare(self, rows: Ints, which: Ints, layouts: list[Layout]) -> Mask:
        """Which objects are written like their layouts; where their values stand is noted."""
        one = stack(tuple(layouts))
        # A layout alone is compared by broadcasting.
        at: Any = slice(None) if len(layouts) == 1 else which
        first, behind = self.first[rows, None], self.behind[rows, None]
        number = one.quotes[at]
        number = number + (np.where(number < 0, behind, first) if self.shape.hole else first)
        starts = self.quotes.take(number, mode="clip") + one.skips[at]
        ends = self.quotes.take(number + 1, mode="clip")
        begins, stops = self.begins[rows, None], self.ends[rows, None]
        anchors = np.concatenate((begins, ends, starts, stops), axis=1)
        gaps = one.gaps[at]
        steps = anchors[:, gaps.shape[1] :] - anchors[:, : gaps.shape[1]]
        fits: Mask = ((steps == gaps) | (gaps < 0)).all(axis=1)
        holes = None
        if self.shape.hole:
            holes = _taken(anchors, one.holes[at][:, ::2]) + one.holes[at][:, 1::2]
            fits &= holes[:, 0] <= holes[:, 1]
        # Where all distances are right, all that is compared lies within the object.
        if fits.all():
            fits = self.same_windows(anchors, one, at)
        else:
            near = np.flatnonzero(fits)
            own = at if len(layouts) == 1 else which[near]
            fits[near] = self.same_windows(anchors[near], one, own)
        found = self.found
        good: Any = slice(None) if fits.all() else np.flatnonzero(fits)
        noted = rows[good]
        found.starts[noted] = _taken(starts, one.fields[at])[good]
        found.ends[noted] = _taken(ends, one.fields[at])[good]
        found.given[noted] = one.given[which[good]]
        found.layout[noted] = which[good] + len(found.layouts)
        if holes is not None:
            found.holes[:, noted] = holes[good].T
        found.layouts.extend(layouts)
        return fits

    def same_windows(self, anchors: Ints, one: Stack, at: Any) -> Mask:
        """Whether all that is no value stands at each object as in its layout."""
        places = _taken(anchors, one.anchors[at]) + one.offsets[at]
        shape = (len(self.text) - WINDOW + 1,)
        items: Any = np.ndarray(shape, f"V{WINDOW}", self.text, strides=(1,))
        words = items[places.ravel()].view(np.uint64).reshape(*places.shape, WINDOW // 8)
        same: Mask = ((words ^ one.expected[at]) & one.masks[at] == 0).all(axis=(1, 2))
        return same


def _taken(rows: Ints, columns: Ints) -> Ints:
    """Of each row the columns that are named for it, or for all."""
    first = np.arange(0, rows.size, rows.shape[1])
    taken: Ints = rows.ravel().take(columns + first[:, None])
    return taken
