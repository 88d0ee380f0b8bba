"""Lists of 0x… texts in, numpy columns out: every value checked, all converted at once.

The texts of a column are joined and decoded in one C pass; Python looks at single values only to
name the one that is wrong. A value is never cut, padded or turned into zero.
"""

from __future__ import annotations

from binascii import unhexlify
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ingest.quantitydigits import NARROW, decode_together
from schemas.columns import Bytes, Column, Nullable, Ragged
from schemas.errors_verify import FieldMissing, HexMalformed, QuantityOutOfRange
from schemas.kinds import Kind

_PREFIX = 0x7830
"""The characters ``0x`` as a little-endian uint16."""
_SHOWN_CHARACTERS_MAX = 80
_WIDE = ("u256",)
_NUMBER_DIGITS = 16
_HEX_BYTES = b"0123456789abcdefABCDEF"
_FEW = 64
"""Up to so many values a loop is faster than numpy."""
_ROWS_TOGETHER_MIN = 24
"""With fewer rows, columns of quantities are decoded faster one by one than together."""
_X, _ZERO = ord("x"), ord("0")


_QUANTITIES_KEPT_MAX = 1 << 16
_kept_quantities: list[str] = []
"""Hex texts of 0, 1, 2, …: what indexes must be, most of the time literally."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which block each row of a table belongs to: only read to name the block in an error."""

    numbers: Sequence[str]
    """The blocks' numbers, as the node wrote them."""
    hashes: Sequence[str]
    """The blocks' hashes, as the node wrote them."""
    ends: Sequence[int]
    """Number of rows up to and with each block."""

    def place(self, row: int) -> dict[str, str]:
        """Number and hash of the block of `row`, as error data."""
        at = bisect_right(self.ends, row)
        number = self.numbers[at]
        try:
            number = str(int(number, 16))
        except ValueError:
            number = clip(number)
        return {"number": number, "hash": clip(self.hashes[at])}


@dataclass(frozen=True, slots=True)
class InnerRows:
    """Rows that are the elements of lists, such as the topics of logs."""

    outer: Rows | InnerRows
    """The rows that hold the lists."""
    lists: Sequence[Sequence[Any]]
    """Their lists."""

    def place(self, row: int) -> dict[str, str]:
        """Number and hash of the block of `row`, as error data."""
        ends = list(accumulate(len(part) for part in self.lists))
        return self.outer.place(bisect_right(ends, row))


AnyRows: TypeAlias = Rows | InnerRows


def clip(text: object) -> str:
    """A value as an error shows it."""
    shown = text if isinstance(text, str) else repr(text)
    if len(shown) <= _SHOWN_CHARACTERS_MAX:
        return shown
    return f"{shown[:_SHOWN_CHARACTERS_MAX]}… ({len(shown)} characters)"


def quantities(count: int) -> list[str]:
    """The JSON-RPC texts of 0 … count - 1."""
    if count > _QUANTITIES_KEPT_MAX:
        return [hex(number) for number in range(count)]
    if count > len(_kept_quantities):
        _kept_quantities.extend(hex(number) for number in range(len(_kept_quantities), count))
    return _kept_quantities[:count]


def hex_column(kind: Kind, texts: Sequence[Any], field: str, rows: AnyRows) -> Column:
    """Turn the texts of one field into a column.

    Parameters
    ----------
    kind : Kind
        ``bytesN``, ``bytes``, ``u256`` or a number kind, or any of them nullable.
    texts : sequence of str, or of str and None for a nullable kind
        One value a row.
    field : str
        The field's name, for errors.
    rows : Rows
        The rows' blocks, for errors.

    Returns
    -------
    Column
        As schemas/columns.py describes for the kind. The arrays may be read-only.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing
        Naming the block, the field and the first value that is wrong.
    """
    if kind.shape == "nullable":
        return _nullable(kind.children[0], texts, field, rows)
    if None in texts:
        raise FieldMissing(field=field, **rows.place(texts.index(None)))
    if kind.shape == "ragged":
        return _ragged(texts, field, rows)
    if kind.text in _WIDE:
        return _quantities(texts, 2 * kind.width, kind, field, rows)[:, ::-1]
    if kind.shape == "fixed":
        return _fixed(texts, kind.width, field, rows)
    return _numbers(kind, texts, field, rows)


class HexTexts(NamedTuple):
    """The texts of one field, which become a column."""

    kind: Kind
    """The column's kind."""
    texts: Sequence[Any]
    """One value a row; None for a nullable kind where it is absent."""
    field: str
    """The field's name, for errors."""


def hex_columns(wanted: Sequence[HexTexts], rows: AnyRows) -> list[Column]:
    """As `hex_column`, for several fields of the same rows: their quantities are decoded together.

    Parameters
    ----------
    wanted : sequence of HexTexts
        The fields, in the order in which one that is wrong is named.
    rows : Rows
        The rows' blocks, for errors.

    Returns
    -------
    list of Column
        One a field.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing
        Naming the block, the field and the first value that is wrong.
    """
    together = None
    if wanted and len(wanted[0].texts) >= _ROWS_TOGETHER_MIN:
        together = _quantities_together([part for part in wanted if _is_quantity(part.kind)])
    if together is None:
        return [hex_column(*part, rows) for part in wanted]
    quick = iter(together)
    return [next(quick) if _is_quantity(part.kind) else hex_column(*part, rows) for part in wanted]


def _is_quantity(kind: Kind) -> bool:
    kind = kind.children[0] if kind.shape == "nullable" else kind
    return kind.shape == "number" or kind.text in _WIDE


def _quantities_together(wanted: Sequence[HexTexts]) -> list[Column] | None:
    """The columns of quantities; None where a value is wrong or has too many zeros before it."""
    given: list[list[Any]] = []
    for kind, texts, _ in wanted:
        present = list(filter(None, texts))
        absent = len(texts) - len(present)
        if absent and (kind.shape != "nullable" or texts.count(None) != absent):
            return None
        given.append(present)
    decoded = decode_together([present for present in given if present])
    if decoded is None:
        return None
    parts = iter(decoded)
    columns: list[Column] = []
    for (kind, texts, _), present in zip(wanted, given, strict=True):
        inner = kind.children[0] if kind.shape == "nullable" else kind
        values = _as_kind(inner, next(parts)) if present else zeros(inner, 0)
        if values is None:
            return None
        columns.append(values if inner is kind else _spread(inner, values, texts))
    return columns


def _as_kind(kind: Kind, numbers: Bytes) -> npt.NDArray[Any] | None:
    """Big-endian numbers as values of `kind`; None where one is out of its range."""
    count, width = numbers.shape
    if kind.text in _WIDE:
        values = np.zeros((count, kind.width), np.uint8)
        values[:, :width] = numbers[:, ::-1]
        return values
    if 2 * width != NARROW:
        return None
    native = numbers.view(">u8").reshape(count)
    if int(native.max()) >> (8 * kind.width):
        return None
    return native.astype(kind.dtype)


def _spread(kind: Kind, values: Any, texts: Sequence[str | None]) -> Nullable:
    """The values at the rows whose text is given, null at the others."""
    count = len(texts)
    if len(values) == count:
        return Nullable(np.ones(count, np.bool_), values)
    spread: Any = zeros(kind, count)
    if not len(values):
        return Nullable(np.zeros(count, np.bool_), spread)
    valid = np.array([text is not None for text in texts], np.bool_)
    spread[valid] = values
    return Nullable(valid, spread)


def _nullable(kind: Kind, texts: Sequence[Any], field: str, rows: AnyRows) -> Nullable:
    absent = texts.count(None)
    if absent == 0:
        valid = np.ones(len(texts), np.bool_)
        return Nullable(valid, hex_column(kind, texts, field, rows))
    if absent == len(texts):
        return Nullable(np.zeros(absent, np.bool_), zeros(kind, absent))
    valid = np.array([text is not None for text in texts], np.bool_)
    # The stand-in is decoded like any value and hidden by the mask.
    zero = "0x" if kind.shape == "ragged" else "0x" + "0" * (2 * kind.width)
    filled = [zero if text is None else text for text in texts]
    return Nullable(valid, hex_column(kind, filled, field, rows))


def zeros(kind: Kind, count: int) -> Column:
    """A column of `count` zero or empty values, as they stand where a nullable is absent."""
    if kind.shape == "ragged":
        return Ragged(np.zeros(count + 1, np.int64), np.empty(0, np.uint8))
    if kind.shape == "fixed":
        return np.zeros((count, kind.width), np.uint8)
    return np.zeros(count, kind.dtype)


def _fixed(texts: Sequence[str], width: int, field: str, rows: AnyRows) -> Bytes:
    count, size = len(texts), 2 * width + 2
    if count == 0:
        return np.empty((0, width), np.uint8)
    if set(map(len, texts)) == {size}:
        try:
            pairs = np.frombuffer("".join(texts).encode("ascii"), "<u2").reshape(count, width + 1)
            if (pairs[:, 0] == _PREFIX).all():
                decoded = unhexlify(np.ascontiguousarray(pairs[:, 1:]).data)
                return np.frombuffer(decoded, np.uint8).reshape(count, width)
        except ValueError:
            pass  # The value at fault is found and named below.
    for row, text in enumerate(texts):
        if len(text) != size or not _is_hex(text):
            _refuse(text, f"0x and {2 * width} hex digits", row, field, rows)
    raise AssertionError(f"{field}: no value is at fault, yet the column was refused")


def _ragged(texts: Sequence[str], field: str, rows: AnyRows) -> Ragged:
    count = len(texts)
    lengths = np.fromiter(map(len, texts), np.int64, count)
    prefixed = [text[:2] for text in texts].count("0x") == count
    if prefixed and not (lengths & 1).any():
        try:
            decoded = unhexlify("".join([text[2:] for text in texts]))
        except ValueError:
            pass  # The value at fault is found and named below.
        else:
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum((lengths >> 1) - 1, out=offsets[1:])
            return Ragged(offsets, np.frombuffer(decoded, np.uint8))
    for row, text in enumerate(texts):
        if len(text) & 1 or not _is_hex(text):
            _refuse(text, "0x and an even number of hex digits", row, field, rows)
    raise AssertionError(f"{field}: no value is at fault, yet the column was refused")


def _numbers(kind: Kind, texts: Sequence[str], field: str, rows: AnyRows) -> npt.NDArray[Any]:
    count = len(texts)
    if count > 1 and texts.count(texts[0]) == count:
        # Chain ids, types and states: one value is decoded, checked, and then repeated.
        return np.repeat(_numbers(kind, texts[:1], field, rows), count)
    try:
        values = np.array(_integers(texts), np.uint64)
    except (ValueError, OverflowError):
        digits = _quantities_slowly(texts, _NUMBER_DIGITS, kind, field, rows)
        values = digits.view(">u8").reshape(count)
    limit = (1 << (8 * kind.width)) - 1
    beyond = np.flatnonzero(values > limit)
    if len(beyond):
        row = int(beyond[0])
        raise QuantityOutOfRange(
            field=field, value=clip(texts[row]), kind=kind.clickhouse_type, **rows.place(row)
        )
    return values.astype(kind.dtype)


def _integers(texts: Sequence[str]) -> list[int]:
    """The values of quantities; ValueError where one is none.

    int() alone would take signs, spaces, underscores and digits of other scripts.
    """
    joined = "," + ",".join(texts)
    strange = joined.encode("ascii").translate(None, _HEX_BYTES)
    if strange != b",x" * len(texts) or joined.count(",0x") != len(texts):
        raise ValueError("not all are quantities")
    return [int(text, 16) for text in texts]


def _quantities(texts: Sequence[str], digits: int, kind: Kind, field: str, rows: AnyRows) -> Bytes:
    """Numbers as big-endian bytes, padded to `digits` hex digits."""
    count, size = len(texts), digits + 2
    if not count:
        return np.empty((0, digits >> 1), np.uint8)
    try:
        if count <= _FEW:
            few = b"".join([value.to_bytes(digits >> 1, "big") for value in _integers(texts)])
            return np.frombuffer(few, np.uint8).reshape(count, digits >> 1)
        # With its prefix on, each text is padded to one size, and the x then made a zero too.
        padded = "".join([text.rjust(size, "0") for text in texts]).encode("ascii")
        flat = np.frombuffer(bytearray(padded), np.uint8)
        marks = np.flatnonzero(flat == _X)
        if len(flat) == count * size and len(marks) == count:
            columns = marks - np.arange(0, count * size, size)
            sizes = size + 1 - columns
            if (
                (columns > 0).all()
                and (sizes > 2).all()
                and (flat[marks - 1] == _ZERO).all()
                and int(sizes.sum()) == sum(map(len, texts))
            ):
                flat[marks] = _ZERO
                decoded = np.frombuffer(unhexlify(flat.data), np.uint8)
                return decoded.reshape(count, size >> 1)[:, 1:]
    except (ValueError, OverflowError):
        pass  # The value at fault is found and named below.
    return _quantities_slowly(texts, digits, kind, field, rows)


def _quantities_slowly(
    texts: Sequence[str], digits: int, kind: Kind, field: str, rows: AnyRows
) -> Bytes:
    """As `_quantities`, value by value: zeros may lead, and the value at fault is named."""
    parts = []
    for row, text in enumerate(texts):
        if len(text) < 3 or not _is_hex(text):
            _refuse(text, "0x and hex digits", row, field, rows)
        stripped = text[2:].lstrip("0")
        if len(stripped) > digits:
            raise QuantityOutOfRange(
                field=field, value=clip(text), kind=kind.clickhouse_type, **rows.place(row)
            )
        parts.append(stripped.rjust(digits, "0"))
    decoded = unhexlify("".join(parts))
    return np.frombuffer(decoded, np.uint8).reshape(len(texts), digits >> 1)


_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _is_hex(text: str) -> bool:
    return text[:2] == "0x" and _HEX_DIGITS.issuperset(text[2:])


def _refuse(text: str, wanted: str, row: int, field: str, rows: AnyRows) -> None:
    raise HexMalformed(field=field, wanted=wanted, value=clip(text), **rows.place(row))
