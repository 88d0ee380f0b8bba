"""Columns round-trip through buffers and Python, and ClickHouse's Native bytes are right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import (
    Span,
    concat,
    cut,
    empty,
    from_python,
    from_spans,
    native_parts,
    row_count,
    take,
    to_buffers,
    to_python,
)
from schemas.kinds import Kind, parse_kind
from schemas.tables import CORE_TABLES

KINDS = [
    "u8", "u64", "i32", "bool", "time", "bytes20", "u256", "i256", "bytes", "string", "?u64",
    "?bytes32", "?bytes", "?u256", "[u256]", "[bytes]", "(u256,bytes)", "[(bytes20,[bytes32])]",
]  # fmt: skip


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """Python values of a kind."""
    if kind.text == "bool":
        return st.booleans()
    if kind.shape == "number":
        limits = np.iinfo(kind.dtype)
        return st.integers(int(limits.min), int(limits.max))
    if kind.text == "u256":
        return st.integers(0, 2**256 - 1)
    if kind.text == "i256":
        return st.integers(-(2**255), 2**255 - 1)
    if kind.shape == "fixed":
        return st.binary(min_size=kind.width, max_size=kind.width)
    if kind.shape == "ragged":
        return st.binary(max_size=300)
    if kind.shape == "list":
        return st.lists(values(kind.children[0]), max_size=4)
    if kind.shape == "nullable":
        return st.none() | values(kind.children[0])
    return st.tuples(*(values(child) for child in kind.children))


def spans(buffers: list[bytes]) -> Iterator[Span]:
    """Each buffer whole."""
    return iter([(buffer, 0, len(buffer)) for buffer in buffers])


@pytest.mark.parametrize("text", KINDS)
@given(data=st.data())
def test_round_trips(text: str, data: st.DataObject) -> None:
    kind = parse_kind(text)
    rows = data.draw(st.lists(values(kind), max_size=20))
    column = from_python(kind, rows)
    assert row_count(column) == len(rows)
    assert to_python(kind, column) == rows
    assert to_python(kind, from_spans(kind, len(rows), spans(to_buffers(kind, column)))) == rows
    half = len(rows) // 2
    parts = [from_python(kind, rows[:half]), empty(kind), from_python(kind, rows[half:])]
    assert to_python(kind, concat(kind, parts)) == rows
    index = data.draw(st.permutations(range(len(rows))))
    taken = take(kind, column, np.array(index, np.int64))
    assert to_python(kind, taken) == [rows[i] for i in index]
    start, stop = half // 2, len(rows) - half // 2
    cut_out = cut(column, start, stop)
    assert to_python(kind, cut_out) == rows[start:stop]
    assert to_buffers(kind, cut_out) == to_buffers(kind, from_python(kind, rows[start:stop]))


def leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"x" * n for n in (127, 128, 20000)])))
def test_native_strings_carry_their_leb128_lengths(rows: list[bytes]) -> None:
    kind = parse_kind("bytes")
    expected = b"".join(leb128(len(row)) + row for row in rows)
    assert b"".join(native_parts(kind, [from_python(kind, rows)])) == expected
    apart = [from_python(kind, [row]) for row in rows]
    assert b"".join(native_parts(kind, apart)) == expected


def test_native_arrays_give_cumulative_ends_then_values() -> None:
    kind = parse_kind("[?u8]")
    column = from_python(kind, [[1, None], [], [3]])
    ends = b"".join(n.to_bytes(8, "little") for n in (2, 2, 3))
    assert b"".join(native_parts(kind, [column])) == ends + b"\0\1\0" + b"\1\0\3"


@pytest.mark.parametrize("text", ["u12", "?[u8]", "bytes0", "[u8", "(u8", ""])
def test_a_malformed_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"column kind|cannot be null"):
        parse_kind(text)


def test_a_buffer_of_the_wrong_size_is_refused() -> None:
    kind = parse_kind("bytes20")
    with pytest.raises(ValueError, match="do not hold"):
        from_spans(kind, 2, spans([bytes(39)]))


def test_every_declared_column_has_a_kind_and_a_doc() -> None:
    for table in CORE_TABLES:
        names = [spec.name for spec in table.columns]
        assert len(set(names)) == len(names)
        assert {*table.order_by, *table.identity} <= set(names)
        for spec in table.columns:
            assert spec.kind.clickhouse_type
            assert spec.doc.endswith(".")
