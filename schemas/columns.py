"""Values in, columns out: how n values of one kind lie in memory, in Avro and in ClickHouse.

In memory a column is one of
- ``np.ndarray[n]`` for number kinds (little-endian),
- ``np.ndarray[n, width]`` of uint8 for fixed kinds,
- ``Ragged`` for ``bytes``, ``string`` and lists, ``Struct`` for tuples, ``Nullable`` for ``?kind``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.kinds import Kind, parse_kind

Bytes: TypeAlias = npt.NDArray[np.uint8]
Part: TypeAlias = Any
"""A piece of a message: bytes, or a contiguous array (which mypy takes for no buffer)."""
Span: TypeAlias = tuple[bytes, int, int]
"""A buffer, and where in it some bytes start and end."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Values of any length: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    offsets: npt.NDArray[np.int64]
    """int64[n + 1], first 0, never falling."""
    values: Column
    """The rows' values one after the other: uint8 for bytes and strings, else a column."""


@dataclass(frozen=True, slots=True)
class Nullable:
    """Values that may be absent."""

    valid: npt.NDArray[np.bool_]
    """bool[n]: False where the value is absent."""
    values: Column
    """n values; zero, or empty, where absent."""


@dataclass(frozen=True, slots=True)
class Struct:
    """Tuples: one column a field."""

    fields: tuple[Column, ...]
    """The fields' columns, each of n values."""


Column: TypeAlias = npt.NDArray[Any] | Ragged | Nullable | Struct


@dataclass(frozen=True, slots=True)
class ColumnBlock:
    """Rows of one table as columns."""

    table: str
    """The table's name."""
    rows: int
    """How many rows every column holds."""
    columns: dict[str, Column]
    """The columns by name, in the table's order."""


def row_count(column: Column) -> int:
    """How many values a column holds."""
    if isinstance(column, Ragged):
        return len(column.offsets) - 1
    if isinstance(column, Nullable):
        return len(column.valid)
    if isinstance(column, Struct):
        return row_count(column.fields[0])
    return len(column)


def empty(kind: Kind) -> Column:
    """A column of no values."""
    if kind.shape == "number":
        return np.empty(0, kind.dtype)
    if kind.shape == "fixed":
        return np.empty((0, kind.width), np.uint8)
    if kind.shape == "ragged":
        return Ragged(np.zeros(1, np.int64), np.empty(0, np.uint8))
    if kind.shape == "list":
        return Ragged(np.zeros(1, np.int64), empty(kind.children[0]))
    if kind.shape == "nullable":
        return Nullable(np.empty(0, np.bool_), empty(kind.children[0]))
    return Struct(tuple(empty(child) for child in kind.children))


def concat(kind: Kind, columns: Sequence[Any]) -> Column:
    """One column of all the values of `columns`, in order."""
    if len(columns) == 1:
        only: Column = columns[0]
        return only
    if not columns:
        return empty(kind)
    if kind.shape in ("number", "fixed"):
        return np.concatenate(columns)
    if kind.shape in ("ragged", "list"):
        steps = [column.offsets[1:] for column in columns]
        ends = np.cumsum([column.offsets[-1] for column in columns])
        for i in range(1, len(steps)):
            steps[i] = steps[i] + ends[i - 1]
        offsets = np.concatenate([np.zeros(1, np.int64), *steps])
        values: list[Any] = [column.values for column in columns]
        if kind.shape == "ragged":
            return Ragged(offsets, np.concatenate(values))
        return Ragged(offsets, concat(kind.children[0], values))
    if kind.shape == "nullable":
        valid = np.concatenate([column.valid for column in columns])
        return Nullable(valid, concat(kind.children[0], [column.values for column in columns]))
    return Struct(
        tuple(
            concat(child, [column.fields[i] for column in columns])
            for i, child in enumerate(kind.children)
        )
    )


def take(kind: Kind, column: Any, index: npt.NDArray[np.int64]) -> Column:
    """The rows of `column` that `index` names, in its order."""
    if kind.shape in ("number", "fixed"):
        taken: npt.NDArray[Any] = column.take(index, axis=0)
        return taken
    if kind.shape in ("ragged", "list"):
        starts = column.offsets[:-1][index]
        lengths = column.offsets[1:][index] - starts
        offsets = np.zeros(len(index) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        inner = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        if kind.shape == "ragged":
            return Ragged(offsets, column.values[inner])
        return Ragged(offsets, take(kind.children[0], column.values, inner))
    if kind.shape == "nullable":
        return Nullable(column.valid[index], take(kind.children[0], column.values, index))
    return Struct(
        tuple(
            take(child, field, index)
            for child, field in zip(kind.children, column.fields, strict=True)
        )
    )


def cut(column: Column, start: int, stop: int) -> Column:
    """The rows from `start` up to `stop`; their values are not copied."""
    if isinstance(column, Nullable):
        return Nullable(column.valid[start:stop], cut(column.values, start, stop))
    if isinstance(column, Ragged):
        ends = column.offsets[start : stop + 1]
        return Ragged(ends - ends[0], cut(column.values, int(ends[0]), int(ends[-1])))
    if isinstance(column, Struct):
        return Struct(tuple(cut(field, start, stop) for field in column.fields))
    return column[start:stop]


def buffers_of(kind: Kind, column: Any) -> list[npt.NDArray[Any]]:
    """The column's buffers in their fixed order: layout version 1 of the segments; contiguous.

    Number and fixed kinds give one buffer; ragged kinds offsets (int64 little-endian, n + 1) and
    values; nullable kinds a mask (one byte a row) and values; tuples their fields' buffers.
    """
    shape = kind.shape
    if shape in ("number", "fixed"):
        return [np.ascontiguousarray(column)]
    if shape == "ragged":
        offsets = np.ascontiguousarray(column.offsets, "<i8")
        return [offsets, np.ascontiguousarray(column.values)]
    if shape == "list":
        offsets = np.ascontiguousarray(column.offsets, "<i8")
        return [offsets, *buffers_of(kind.children[0], column.values)]
    if shape == "nullable":
        return [np.ascontiguousarray(column.valid), *buffers_of(kind.children[0], column.values)]
    pairs = zip(kind.children, column.fields, strict=True)
    return list(chain.from_iterable(buffers_of(child, field) for child, field in pairs))


def to_buffers(kind: Kind, column: Any) -> list[bytes]:
    """The column's buffers, as `buffers_of`, copied."""
    return [buffer.tobytes() for buffer in buffers_of(kind, column)]


def from_spans(kind: Kind, rows: int, spans: Iterator[Span]) -> Column:
    """The column whose buffers lie at the next `spans`: read-only views, perhaps unaligned.

    Raises
    ------
    ValueError
        If a buffer has not the size that the kind and the row count ask for.
    """
    shape = kind.shape
    buffer, start, end = next(spans)
    if shape in ("number", "fixed"):
        return plain_column(kind, rows, buffer, start, end)
    if shape in ("ragged", "list"):
        if end - start != 8 * rows + 8:
            raise ValueError(f"{kind.text}: {end - start} bytes of offsets for {rows} rows")
        offsets: npt.NDArray[np.int64] = np.ndarray(rows + 1, "<i8", buffer, start)
        if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"{kind.text}: offsets do not describe {rows} rows")
        total = int(offsets[-1])
        if shape == "list":
            return Ragged(offsets, from_spans(kind.children[0], total, spans))
        buffer, start, end = next(spans)
        if end - start != total:
            raise ValueError(f"{kind.text}: {end - start} bytes where offsets end at {total}")
        return Ragged(offsets, np.ndarray(total, np.uint8, buffer, start))
    if shape == "nullable":
        if end - start != rows:
            raise ValueError(f"{kind.text}: the mask has {end - start} rows, not {rows}")
        valid: npt.NDArray[np.bool_] = np.ndarray(rows, np.bool_, buffer, start)
        return Nullable(valid, from_spans(kind.children[0], rows, spans))
    spans = chain([(buffer, start, end)], spans)
    return Struct(tuple(from_spans(child, rows, spans) for child in kind.children))


def plain_column(
    kind: Kind, rows: int, buffer: bytes, start: int, end: int
) -> npt.NDArray[np.generic]:
    """A column of a number or fixed kind: a view of ``buffer[start:end]``.

    Raises
    ------
    ValueError
        If those bytes do not hold `rows` values.
    """
    if end - start != rows * kind.width:
        raise ValueError(f"{kind.text}: {end - start} bytes do not hold {rows} values")
    size = (rows, kind.width) if kind.shape == "fixed" else rows
    return np.ndarray(size, kind.dtype, buffer, start)


def native_parts(kind: Kind, columns: Sequence[Any]) -> list[Part]:
    """The columns, one after the other, as the body of a ClickHouse Native block's column.

    The parts are contiguous; those of numbers and fixed kinds are the columns themselves.

    Source: ClickHouse docs, "Native format" (fixed-width little-endian values; strings behind a
    LEB128 length; arrays as cumulative UInt64 ends, then the values; the null map first).
    """
    if kind.shape in ("number", "fixed"):
        return [np.ascontiguousarray(column) for column in columns]
    if kind.shape == "ragged":
        whole: Any = concat(kind, columns)
        return [_native_strings(whole.offsets, whole.values)]
    if kind.shape == "list":
        whole = concat(kind, columns)
        ends = whole.offsets[1:].astype("<u8")
        return [ends, *native_parts(kind.children[0], [whole.values])]
    if kind.shape == "nullable":
        absent = [~column.valid for column in columns]
        return [*absent, *native_parts(kind.children[0], [column.values for column in columns])]
    fields = [
        native_parts(child, [column.fields[i] for column in columns])
        for i, child in enumerate(kind.children)
    ]
    return list(chain.from_iterable(fields))


def _native_strings(offsets: npt.NDArray[np.int64], values: Bytes) -> Bytes:
    """Each row behind its LEB128 length, without a loop over rows."""
    lengths = np.diff(offsets)
    count = len(lengths)
    if count == 0:
        return np.empty(0, np.uint8)
    prefix_bytes = np.ones(count, np.int64)
    bound = 1 << 7
    longest = int(lengths.max())
    while bound <= longest:
        prefix_bytes += lengths >= bound
        bound <<= 7
    prefix_starts = offsets[:-1] + np.cumsum(prefix_bytes) - prefix_bytes
    out: Bytes = np.empty(len(values) + int(prefix_bytes.sum()), np.uint8)
    is_value = np.ones(len(out), np.bool_)
    for place in range(int(prefix_bytes.max())):
        has = prefix_bytes > place
        digit = (lengths[has] >> (7 * place)) & 0x7F
        more = np.where(prefix_bytes[has] > place + 1, 0x80, 0)
        at = prefix_starts[has] + place
        out[at] = digit | more
        is_value[at] = False
    out[is_value] = values
    return out


def from_python(kind: Kind, values: Sequence[Any]) -> Column:
    """A column of Python values: int, bool, bytes, str, None, list, tuple as the kind asks."""
    if kind.shape == "number":
        return np.array(values, kind.dtype) if len(values) else np.empty(0, kind.dtype)
    if kind.shape == "fixed":
        if kind.text in ("u256", "i256"):
            signed = kind.text == "i256"
            values = [int(value).to_bytes(32, "little", signed=signed) for value in values]
        if any(len(value) != kind.width for value in values):
            raise ValueError(f"{kind.text}: a value has not {kind.width} bytes")
        return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), kind.width)
    if kind.shape in ("ragged", "list"):
        if kind.text == "string":
            values = [v.encode() if isinstance(v, str) else v for v in values]
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        if kind.shape == "ragged":
            return Ragged(offsets, np.frombuffer(b"".join(values), np.uint8))
        flat = list(chain.from_iterable(values))
        return Ragged(offsets, from_python(kind.children[0], flat))
    if kind.shape == "nullable":
        child = kind.children[0]
        zero: Any = b"" if child.shape == "ragged" else 0
        if child.shape == "fixed" and child.text not in ("u256", "i256"):
            zero = bytes(child.width)
        valid = np.array([value is not None for value in values], np.bool_)
        return Nullable(valid, from_python(child, [zero if v is None else v for v in values]))
    parts = [[value[i] for value in values] for i in range(len(kind.children))]
    pairs = zip(kind.children, parts, strict=True)
    return Struct(tuple(from_python(child, part) for child, part in pairs))


def to_python(kind: Kind, column: Any) -> list[Any]:
    """The column's values as Python values; strings come as bytes (they may not be UTF-8)."""
    if kind.shape == "number":
        values: list[Any] = column.tolist()
        return [bool(value) for value in values] if kind.text == "bool" else values
    if kind.shape == "fixed":
        raw, width = column.tobytes(), kind.width
        cut = [raw[i : i + width] for i in range(0, len(raw), width)]
        if kind.text in ("u256", "i256"):
            return [int.from_bytes(v, "little", signed=kind.text == "i256") for v in cut]
        return cut
    if kind.shape == "ragged":
        raw, ends = column.values.tobytes(), column.offsets.tolist()
        return [raw[a:b] for a, b in pairwise(ends)]
    if kind.shape == "list":
        flat, ends = to_python(kind.children[0], column.values), column.offsets.tolist()
        return [flat[a:b] for a, b in pairwise(ends)]
    if kind.shape == "nullable":
        inner = to_python(kind.children[0], column.values)
        return [v if ok else None for v, ok in zip(inner, column.valid.tolist(), strict=True)]
    fields = [to_python(c, f) for c, f in zip(kind.children, column.fields, strict=True)]
    return list(zip(*fields, strict=True))


__all__ = [
    "Column",
    "ColumnBlock",
    "Kind",
    "Nullable",
    "Part",
    "Ragged",
    "Span",
    "Struct",
    "buffers_of",
    "concat",
    "cut",
    "empty",
    "from_python",
    "from_spans",
    "native_parts",
    "parse_kind",
    "plain_column",
    "row_count",
    "take",
    "to_buffers",
    "to_python",
]
