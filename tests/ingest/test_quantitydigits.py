"""Quantities decoded together must be what they are column by column, errors included."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.hexcolumns import HexTexts, Rows, hex_column, hex_columns
from ingest.quantitydigits import decode_together
from schemas.columns import to_buffers
from schemas.errors import HeadraceError
from schemas.kinds import parse_kind

KINDS = ("u8", "u32", "u64", "?u8", "?u64", "u256", "?u256", "bytes20", "?bytes20", "bytes")
BITS = {"u8": 8, "u32": 32, "u64": 64, "u256": 256}
STRANGE = (
    *(None, "", "0x", "0", "x1", "0X1", " 0x1", "0x1 ", "+0x1", "0x_1", "0x1_0", "0x-1", "1x0"),
    *("0xg", "0x\u0661", "\uff10x1", "0x1,0x2", ",0x1", "0x1,", "0x0x1", "0x" + "0" * 70 + "1"),
    *("0x" + "f" * 64, "0x1" + "0" * 64, "0x" + "f" * 16, "0x1" + "0" * 16, "0x100", "0x1\n"),
)
ADDRESS = "0x" + "aB" * 20
ROWS = 10
"""So many times a column's values stand: the columns of a few rows are read one by one."""


def texts_of(kind: str, rows: int) -> st.SearchStrategy[list[str | None]]:
    """Values of a kind, of few or many digits, and null where it may be."""
    bare = kind.removeprefix("?")
    if bare not in BITS:
        values: st.SearchStrategy[Any] = st.just(ADDRESS)
    else:
        few = st.integers(0, 2 ** min(BITS[bare], 32) - 1)
        numbers = few | st.integers(0, 2 ** BITS[bare] - 1)
        values = numbers.map(hex) | numbers.map(lambda number: f"0x0{number:X}")
    if kind.startswith("?"):
        values = values | st.none()
    return st.lists(values, min_size=rows, max_size=rows)


@st.composite
def tables(draw: st.DrawFn) -> list[HexTexts]:
    """Fields of one table, sometimes with a value that may not stand there."""
    rows = draw(st.sampled_from((0, 1, 23, 24, 31)))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=6))
    columns = [draw(texts_of(kind, rows)) for kind in kinds]
    if rows and kinds and draw(st.booleans()):
        at = draw(st.integers(0, len(kinds) - 1)), draw(st.integers(0, rows - 1))
        columns[at[0]][at[1]] = draw(st.sampled_from(STRANGE))
    named = zip(kinds, columns, strict=True)
    return [
        HexTexts(parse_kind(kind), texts, f"field {place}")
        for place, (kind, texts) in enumerate(named)
    ]


def outcome(wanted: list[HexTexts], *, together: bool) -> object:
    """The columns' buffers, or the error and what it names."""
    rows = Rows(["0x7"], ["0xaa"], [len(wanted[0].texts) if wanted else 0])
    try:
        if together:
            columns = hex_columns(wanted, rows)
        else:
            columns = [hex_column(*part, rows) for part in wanted]
    except HeadraceError as error:
        return type(error), error.data
    return [to_buffers(part.kind, column) for part, column in zip(wanted, columns, strict=True)]


@given(tables())
def test_columns_together_are_the_columns_one_by_one(wanted: list[HexTexts]) -> None:
    assert outcome(wanted, together=True) == outcome(wanted, together=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_value_is_taken_or_refused_alike(kind: str, strange: str | None) -> None:
    beside = HexTexts(parse_kind("u64"), ["0x1", "0x2", "0x3"] * ROWS, "beside")
    usual = "0x5" if kind.removeprefix("?") in BITS else ADDRESS
    wanted = [beside, HexTexts(parse_kind(kind), [usual, strange, usual] * ROWS, "field"), beside]
    assert outcome(wanted, together=True) == outcome(wanted, together=False)


def test_quantities_are_decoded_to_the_width_that_holds_their_column() -> None:
    narrow, wide = ["0x1", "0x" + "f" * 16], ["0x0", "0x1" + "0" * 16, "0x" + "f" * 64]
    found = decode_together([narrow, wide, ["0xaB"]])
    assert found is not None
    assert [part.shape for part in found] == [(2, 8), (3, 32), (1, 8)]
    assert [int.from_bytes(row.tobytes(), "big") for part in found for row in part] == [
        int(text, 16) for text in (*narrow, *wide, "0xaB")
    ]


@pytest.mark.parametrize("text", ["0x", "0x1" + "0" * 64, "1", "0x1,0x2", "0xg", "0x\u0661"])
def test_what_is_no_quantity_of_256_bits_is_not_decoded(text: str) -> None:
    assert decode_together([["0x1"], ["0x2", text]]) is None
