"""Fields of payloads in, columns of a declared table out: what all the builders share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.hexcolumns import AnyRows, HexTexts, Rows, hex_column, hex_columns
from ingest.wire import Block
from schemas.columns import Column, ColumnBlock, Nullable
from schemas.errors_verify import HexMalformed, QuantityOutOfRange
from schemas.tables import Table


def fill_fields(
    table: Table, fields: dict[str, str], payloads: Sequence[Any], rows: AnyRows, what: str
) -> dict[str, Column]:
    """Columns of `table` that each hold one hex field of the payloads."""
    if not payloads:
        wanted = [HexTexts(table.column(name).kind, (), what) for name in fields]
    else:
        wanted = field_texts(table, fields, values_by_field(payloads), what)
    return dict(zip(fields, hex_columns(wanted, rows), strict=True))


def drop_unreadable(table: Table, fields: dict[str, str], payload: Any) -> dict[str, Any]:
    """Set fields to None whose text their nullable column of `table` cannot hold.

    Returns
    -------
    dict
        The texts that were dropped, by attribute.
    """
    nowhere, dropped = Rows(["0x0"], ["0x"], [1]), {}
    for column, attribute in fields.items():
        kind = table.column(column).kind
        if kind.shape == "nullable":
            text = getattr(payload, attribute)
            try:
                hex_column(kind, [text], attribute, nowhere)
            except (HexMalformed, QuantityOutOfRange):
                dropped[attribute] = text
                setattr(payload, attribute, None)
    return dropped


def field_texts(
    table: Table, fields: dict[str, str], values: dict[str, tuple[Any, ...]], what: str
) -> list[HexTexts]:
    """The texts of columns of `table` that each hold one hex field of the payloads."""
    return [
        HexTexts(table.column(name).kind, values[attribute], what + attribute)
        for name, attribute in fields.items()
    ]


def values_by_field(payloads: Sequence[msgspec.Struct]) -> dict[str, tuple[Any, ...]]:
    """What each field holds, one value a payload; all are of one type, and there is one."""
    by_field = zip(*map(msgspec.structs.astuple, payloads), strict=True)
    return dict(zip(payloads[0].__struct_fields__, by_field, strict=True))


def table_block(table: Table, rows: int, columns: dict[str, Column]) -> ColumnBlock:
    """A block with the table's columns in the table's order."""
    return ColumnBlock(table.name, rows, {spec.name: columns[spec.name] for spec in table.columns})


def block_rows(blocks: Sequence[Block], counts: Sequence[int]) -> Rows:
    """Rows of which each block has as many as `counts` says."""
    return Rows(
        [block.number for block in blocks],
        [block.hash for block in blocks],
        list(accumulate(counts)),
    )


def repeat_identity(header: dict[str, Column], counts: Sequence[int]) -> dict[str, Column]:
    """The identity columns of the blocks, each row as often as `counts` says."""
    names = ("block_number", "block_hash", "block_time")
    return {name: np.repeat(as_array(header[name]), counts, axis=0) for name in names}


def positions(counts: Sequence[int]) -> npt.NDArray[np.uint32]:
    """0…n-1 for each count, one after the other."""
    ends = np.cumsum(counts, dtype=np.int64)
    starts = np.repeat(ends - np.array(counts, np.int64), counts)
    total = int(ends[-1]) if len(counts) else 0
    return (np.arange(total, dtype=np.int64) - starts).astype(np.uint32)


def nullable_counts(counts: Sequence[int | None]) -> Nullable:
    """A ``?u32`` column of counts."""
    valid = np.array([count is not None for count in counts], np.bool_)
    return Nullable(valid, np.array([count or 0 for count in counts], np.uint32))


def list_offsets(lists: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """The offsets with which the lists' elements make a Ragged column."""
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(part) for part in lists], out=offsets[1:])
    return offsets


def as_array(column: Column) -> npt.NDArray[Any]:
    """The column as an array; it must be of a number or fixed kind."""
    assert isinstance(column, np.ndarray)
    return column
