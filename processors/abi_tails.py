"""Heads and tails of ABI data in, columns of arrays, tuples, bytes and strings out.

All logs are decoded at once, parameter by parameter: an *instance* is one occurrence of a type,
known by its row (log), its frame (what its pointers are relative to) and its head. A violation
never stops the others: it marks its row, whose values are then of no use.

Source: eth-abi 6, ``decoding.py``, strict: the same data are taken and refused. One deviation:
data whose pointers share tails may decode to far more than its own size; see EXPANSION_MAX.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from processors.abi_words import Positions, take_bytes, word_of
from schemas.abi import AbiType
from schemas.columns import Bytes, Column, Ragged, Struct

EXPANSION_MAX = 4
"""Most bytes that one byte of a log's data may decode to. Honest encoders share no tails: 1."""

_COPY_BY_ROW_BYTES = 64
"""Mean length above which copying row by row beats copying byte by byte through an index."""


class Reason(IntEnum):
    """Why a log's data was refused."""

    SHORT = 1
    """The data ends before the value does."""
    VALUE = 2
    """Bits beyond a value are set."""
    POINTER = 3
    """A pointer leads out of the data or into the heads."""
    LENGTH = 4
    """A length is beyond the data."""
    PADDING = 5
    """Bytes behind a value, up to the next word, are not zero."""
    UTF8 = 6
    """A string is not UTF-8."""
    EXPANSION = 7
    """Pointers share tails, beyond EXPANSION_MAX."""
    BATCH = 8
    """The arrays of a batch differ in length."""
    TOPICS = 9
    """No layout of the event has as many topics."""


class Tails:
    """The data of some logs while it is being decoded, with what was found wrong."""

    def __init__(self, buffer: Bytes, starts: Positions, ends: Positions) -> None:
        """Take the rows' data, ``buffer[starts[i]:ends[i]]``."""
        if len(buffer) < 32:
            buffer = np.concatenate([buffer, np.zeros(32, np.uint8)])
        self._buffer = buffer
        self._starts = starts
        self._ends = ends
        self._budget = (ends - starts) * EXPANSION_MAX
        self._position_max = len(buffer) - 32
        self.refused = np.zeros(len(starts), np.int16)
        """int16[rows]: 0, or the first violation as ``parameter * 16 + Reason``."""
        self._any_refused = False
        self._parameter = 0

    def parameters(self, types: tuple[AbiType, ...]) -> list[Column]:
        """The columns of the parameters whose heads follow one another at the rows' starts."""
        rows = np.arange(len(self._starts))
        columns, head = [], self._starts
        floor = self._starts + _pointer_floor_bytes(types)
        for position, abi_type in enumerate(types):
            self._parameter = position
            columns.append(self._value(abi_type, self._starts, head, floor, rows))
            head = head + abi_type.head_bytes
        return columns

    def _refuse(self, rows: Positions, reason: Reason) -> None:
        fresh = rows[self.refused[rows] == 0]
        self.refused[fresh] = self._parameter * 16 + reason
        self._any_refused = True

    def _spared(self, counts: Positions, rows: Positions) -> Positions:
        """`counts`, but 0 for refused rows: whatever they hold is not worth reading."""
        return np.where(self.refused[rows] == 0, counts, 0) if self._any_refused else counts

    def _fits(self, ends: Positions, rows: Positions) -> None:
        """Refuse rows of instances that end beyond their data."""
        beyond = ends > self._ends[rows]
        if beyond.any():
            self._refuse(rows[beyond], Reason.SHORT)

    def _spend(self, costs: Positions, rows: Positions) -> None:
        """Refuse rows that would decode to too many bytes, before any of them is made."""
        np.subtract.at(self._budget, rows, costs)
        if (self._budget < 0).any():
            self._refuse(np.flatnonzero(self._budget < 0), Reason.EXPANSION)

    def _words(self, positions: Positions, rows: Positions) -> Bytes:
        self._fits(positions + 32, rows)
        if self._any_refused:
            positions = np.minimum(positions, self._position_max)
        return take_bytes(self._buffer, positions, 32)

    def _number(self, positions: Positions, rows: Positions, reason: Reason) -> Positions:
        """A pointer or a length; more than there is data is refused with `reason`, and reads 0."""
        words = self._words(positions, rows)
        low = words.view(">u8")[:, 3].astype(np.uint64)
        high = words.view("<u8")[:, :3]
        if high.any() or low.max(initial=0) > len(self._buffer):
            beyond = high.any(axis=1) | (low > len(self._buffer))
            self._refuse(rows[beyond], reason)
            low = np.where(beyond, 0, low)
        return self._spared(low.view(np.int64), rows)

    def _value(
        self,
        abi_type: AbiType,
        frame: Positions,
        head: Positions,
        floor: Positions,
        rows: Positions,
    ) -> Column:
        """Instances with their heads at `head`; pointers from `frame` lead to `floor` or beyond."""
        if not abi_type.dynamic:
            return self._static(abi_type, head, rows)
        at = frame + self._number(head, rows, Reason.POINTER)
        outside = (at < floor) | (at >= self._ends[rows])
        if outside.any():
            self._refuse(rows[outside], Reason.POINTER)
            at = np.where(outside, self._starts[rows], at)
        if abi_type.base in ("bytes", "string"):
            return self._bytes(abi_type, at, rows)
        if abi_type.base == "tuple":
            return self._dynamic_tuple(abi_type, at, rows)
        return self._dynamic_array(abi_type, at, rows)

    def _static(self, abi_type: AbiType, head: Positions, rows: Positions) -> Column:
        if abi_type.base == "tuple":
            fields = []
            for member in abi_type.children:
                fields.append(self._static(member, head, rows))
                head = head + member.head_bytes
            return Struct(tuple(fields))
        if abi_type.base == "array":
            counts = np.full(len(rows), abi_type.length or 0)
            return self._elements(abi_type.children[0], self._spared(counts, rows), head, rows)
        word, words = word_of(abi_type), self._words(head, rows)
        wrong = word.wrong(words)
        if wrong is not None:
            self._refuse(rows[wrong], Reason.VALUE)
        return word.read(words)

    def _dynamic_tuple(self, abi_type: AbiType, at: Positions, rows: Positions) -> Column:
        members = abi_type.children
        size = sum(member.head_bytes for member in members)
        self._fits(at + size, rows)
        self._spend(np.full(len(rows), size), rows)
        floor, head, fields = at + _pointer_floor_bytes(members), at, []
        for member in members:
            fields.append(self._value(member, at, head, floor, rows))
            head = head + member.head_bytes
        return Struct(tuple(fields))

    def _dynamic_array(self, abi_type: AbiType, at: Positions, rows: Positions) -> Column:
        element = abi_type.children[0]
        if abi_type.length is None:
            counts, frame = self._number(at, rows, Reason.LENGTH), at + 32
        else:
            counts, frame = np.full(len(rows), abi_type.length), at
        spread = counts * element.head_bytes
        self._fits(frame + spread, rows)
        self._spend(self._spared(spread, rows), rows)
        return self._elements(element, self._spared(counts, rows), frame, rows)

    def _elements(
        self, element: AbiType, counts: Positions, frame: Positions, rows: Positions
    ) -> Column:
        """Arrays of `counts` elements whose heads follow one another from `frame`."""
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        frames = np.repeat(frame, counts)
        steps = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        floors = np.repeat(frame + 32 * counts, counts)
        heads = frames + steps * element.head_bytes
        values = self._value(element, frames, heads, floors, np.repeat(rows, counts))
        return Ragged(offsets, values)

    def _bytes(self, abi_type: AbiType, at: Positions, rows: Positions) -> Ragged:
        lengths = self._number(at, rows, Reason.LENGTH)
        padded = (lengths + 31) & ~31
        self._fits(at + 32 + padded, rows)
        self._spend(self._spared(padded, rows), rows)
        lengths = self._spared(lengths, rows)
        used = lengths & 31
        last = np.flatnonzero(used)
        if len(last):
            tails = take_bytes(self._buffer, (at + (lengths & ~31) + 32)[last], 32)
            dirty = ((np.arange(32) >= used[last, None]) & (tails != 0)).any(axis=1)
            if dirty.any():
                self._refuse(rows[last[dirty]], Reason.PADDING)
        column = _copied(self._buffer, at + 32, lengths)
        if abi_type.base == "string":
            self._check_utf8(column, rows)
        return column

    def _check_utf8(self, column: Ragged, rows: Positions) -> None:
        """Refuse rows with a string that is not UTF-8."""
        raw, ends = np.asarray(column.values).tobytes(), column.offsets.tolist()
        if raw.isascii():
            return
        for i, (start, end) in enumerate(pairwise(ends)):
            try:
                raw[start:end].decode()
            except UnicodeDecodeError:
                self._refuse(rows[i : i + 1], Reason.UTF8)


def _pointer_floor_bytes(types: tuple[AbiType, ...]) -> int:
    """How far behind their frame the pointers of these members must lead, as eth-abi sees it.

    eth-abi counts a word a member, and a word an element for arrays of fixed length: less than
    the heads take where such arrays nest or tuples are static. What it accepts is accepted here.
    """
    return 32 * sum(
        t.length if t.base == "array" and t.length and not t.dynamic else 1 for t in types
    )


def _copied(buffer: Bytes, starts: Positions, lengths: Positions) -> Ragged:
    """The bytes at `starts`, one after the other."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    values: npt.NDArray[np.uint8]
    if total > _COPY_BY_ROW_BYTES * len(lengths):
        ends = (starts + lengths).tolist()
        values = np.concatenate([buffer[a:b] for a, b in zip(starts.tolist(), ends, strict=True)])
    else:
        values = buffer[np.repeat(starts - offsets[:-1], lengths) + np.arange(total)]
    return Ragged(offsets, values)
