"""One JSON object in, what stands between its values out: the layout of all written like it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

WINDOW = 32
"""Characters that are compared at once."""
_WORDS = WINDOW // 8
_STRING = re.compile(rb'"([^"\\]*)"(:?)')
_PREFIXED = b'"0x'
_CONSTANTS: dict[bytes, bool | list[Any] | None] = {
    b"null": None,
    b"true": True,
    b"false": False,
    b"[]": [],
}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Irregular(Exception):
    """Text is not as regular as it has to be; it never leaves the scanning modules."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is wanted of the objects of one sort."""

    texts: tuple[str, ...]
    """Keys whose values are hex texts, or null, or absent."""
    constants: tuple[str, ...] = ()
    """Keys whose values are true, false, null, or an empty array, or absent."""
    hole: str | None = None
    """Key of an array whose inside is read apart."""


@dataclass(frozen=True, slots=True)
class Window:
    """Characters that stand at a place relative to a value."""

    anchor: int
    """Values up to it count from their ends, 0 being the object's begin; those above from their
    starts, the last being the object's end."""
    offset: int
    """Distance from the anchor."""
    text: bytes
    """What stands there, at most `WINDOW` characters."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What stands between the values of an object."""

    quotes: tuple[int, ...]
    """Number of each value's opening quote; behind the hole, counted back from the last one."""
    skips: tuple[int, ...]
    """Characters from that quote to the value: 3 where 0x stands between."""
    gaps: tuple[int, ...]
    """Characters before each value, and behind the last; -1 where the hole is among them."""
    windows: tuple[Window, ...]
    """All characters that are no values."""
    fields: tuple[int, ...]
    """Per key of `Shape.texts` the number of its value; -1 where it has none."""
    constants: tuple[bool | list[Any] | None, ...]
    """Per key of `Shape.constants` its value."""
    hole: tuple[int, int, int, int] | None
    """Anchor and offset of the begin and the end of the hole's inside."""


@dataclass(slots=True)
class _Cuts:
    """Values of an object while its layout is learnt."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    quotes: list[int] = field(default_factory=list)
    skips: list[int] = field(default_factory=list)


def learn(text: bytes, shape: Shape) -> Layout:
    """Learn a layout.

    Parameters
    ----------
    text : bytes
        A JSON object, without backslashes.
    shape : Shape
        What is wanted of it.

    Raises
    ------
    Irregular
        It is written with spaces, names a key twice, holds something nested, or a wanted value is
        of another type.
    """
    spans = _spans(text, shape.hole)
    hole = None if shape.hole is None else _inside(text, spans, shape.hole)
    cuts, numbers = _cut(text, spans, shape, hole)
    count = len(cuts.starts)
    ends = (0, *cuts.ends)
    starts = (*cuts.starts, len(text))
    gaps, windows = [], []
    hole_at = None
    for gap, (begin, end) in enumerate(zip(ends, starts, strict=True)):
        behind = count + 1 + gap
        if hole is not None and begin <= hole[0] and hole[1] <= end and hole_at is None:
            windows += _windows(gap, 0, text[begin : hole[0]])
            windows += _windows(behind, hole[1] - end, text[hole[1] : end])
            hole_at = (gap, hole[0] - begin, behind, hole[1] - end)
            gaps.append(-1)
            continue
        windows += _windows(gap, 0, text[begin:end])
        gaps.append(end - begin)
    return Layout(
        tuple(cuts.quotes),
        tuple(cuts.skips),
        tuple(gaps),
        tuple(windows),
        tuple(numbers.get(key, -1) for key in shape.texts),
        tuple(_constant(text, spans, key) for key in shape.constants),
        hole_at,
    )


def _constant(text: bytes, spans: dict[str, tuple[int, int]], key: str) -> bool | list[Any] | None:
    """The value of a key that is no text."""
    begin, end = spans.get(key, (0, 0))
    if begin == end:
        return None
    if text[begin:end] not in _CONSTANTS:
        raise Irregular
    return _CONSTANTS[text[begin:end]]


def _spans(text: bytes, hole: str | None) -> dict[str, tuple[int, int]]:
    """Where the JSON of each key's value begins and ends."""
    try:
        fields = _fields.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Irregular from None
    spans = {}
    at, parts = 1, []
    for key, raw in fields.items():
        value = bytes(raw)
        if key != hole and value[:1] in (b"{", b"[") and value != b"[]":
            raise Irregular
        name = b'"%s":' % key.encode()
        parts.append(name + value)
        spans[key] = (at + len(name), at + len(parts[-1]))
        at += len(parts[-1]) + 1
    # Written again it is the same only without spaces, and with each key once.
    if b"{" + b",".join(parts) + b"}" != text:
        raise Irregular
    return spans


def _inside(text: bytes, spans: dict[str, tuple[int, int]], key: str) -> tuple[int, int]:
    """Where the inside of an array begins and ends."""
    if key not in spans:
        raise Irregular
    begin, end = spans[key]
    if text[begin : begin + 1] != b"[" or end - begin < 2:
        raise Irregular
    return begin + 1, end - 1


def _cut(
    text: bytes,
    spans: dict[str, tuple[int, int]],
    shape: Shape,
    hole: tuple[int, int] | None,
) -> tuple[_Cuts, dict[str, int]]:
    """The object's values, and the numbers of those that are wanted."""
    wanted = {}
    for key in shape.texts:
        if key in spans:
            begin, end = spans[key]
            if text[begin : begin + 3] == _PREFIXED:
                wanted[begin] = key
            elif text[begin:end] != b"null":
                raise Irregular
    cuts, number = _Cuts(), -2
    numbers: dict[str, int] = {}
    total = text.count(b'"')
    for found in _STRING.finditer(text):
        number += 2
        if found.group(2) or (hole is not None and hole[0] <= found.start() < hole[1]):
            continue
        skip = 1
        if found.start() in wanted:
            numbers[wanted[found.start()]] = len(cuts.starts)
            skip = len(_PREFIXED)
        behind = hole is not None and found.start() >= hole[1]
        cuts.starts.append(found.start() + skip)
        cuts.ends.append(found.end() - 1)
        cuts.quotes.append(number - total if behind else number)
        cuts.skips.append(skip)
    if 2 + number != total or len(numbers) < len(wanted):
        raise Irregular
    return cuts, numbers


def _windows(anchor: int, offset: int, text: bytes) -> list[Window]:
    return [
        Window(anchor, offset + at, text[at : at + WINDOW]) for at in range(0, len(text), WINDOW)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Several layouts as arrays, a row each; shorter ones repeat their last value."""

    quotes: Ints
    """int64[layouts, values]."""
    skips: Ints
    """int64[layouts, values]."""
    gaps: Ints
    """int64[layouts, values + 1]; -1 where anything may stand."""
    anchors: Ints
    """int64[layouts, windows]."""
    offsets: Ints
    """int64[layouts, windows]."""
    expected: npt.NDArray[np.uint64]
    """uint64[layouts, windows, 4]: the characters of each window."""
    masks: npt.NDArray[np.uint64]
    """The same: which of them are compared."""
    fields: Ints
    """int64[layouts, texts]: the number of each text's value, 0 where it has none."""
    given: npt.NDArray[np.bool_]
    """bool[layouts, texts]: whether it has one."""
    holes: Ints
    """int64[layouts, 4]: as in `Layout.hole`."""


@lru_cache(maxsize=64)
def stack(layouts: tuple[Layout, ...]) -> Stack:
    """Layouts as arrays; each has at least one value."""
    shape = len(layouts), max(len(layout.quotes) for layout in layouts)
    width = max(len(layout.windows) for layout in layouts)
    quotes, skips = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    gaps = np.full((shape[0], shape[1] + 1), -1, np.int64)
    anchors, offsets = np.zeros((2, shape[0], width), np.int64)
    expected, masks = np.zeros((2, shape[0], width, WINDOW), np.uint8)
    holes = np.zeros((shape[0], 4), np.int64)
    fields = np.array([layout.fields for layout in layouts], np.int64)
    for row, layout in enumerate(layouts):
        own = len(layout.quotes)
        more = shape[1] - own
        quotes[row] = layout.quotes + layout.quotes[-1:] * more
        skips[row] = layout.skips + layout.skips[-1:] * more
        gaps[row, :own], gaps[row, -1] = layout.gaps[:-1], layout.gaps[-1]

        def moved(anchor: int, own: int = own, more: int = more) -> int:
            """The anchor where more values stand before the object's end."""
            return anchor + (anchor > own) * more + (anchor == 2 * own + 1) * more

        for place, window in enumerate(layout.windows):
            anchors[row, place] = moved(window.anchor)
            offsets[row, place] = window.offset
            expected[row, place, : len(window.text)] = np.frombuffer(window.text, np.uint8)
            masks[row, place, : len(window.text)] = 0xFF
        if layout.hole is not None:
            begin, begin_offset, end, end_offset = layout.hole
            holes[row] = moved(begin), begin_offset, moved(end), end_offset
    given = fields >= 0
    fields[~given] = 0
    words = shape[0], width, _WORDS
    return Stack(
        quotes,
        skips,
        gaps,
        anchors,
        offsets,
        expected.reshape(shape[0], -1).view(np.uint64).reshape(words),
        masks.reshape(shape[0], -1).view(np.uint64).reshape(words),
        fields,
        given,
        holes,
    )
