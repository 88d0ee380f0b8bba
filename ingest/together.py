"""The proven segments of a wide range in, those of each of its parts out: cut, not copied.

A pass over few rows costs its calls, not its rows. So adjacent segments are proven in one pass, and
what comes out is the same, byte for byte, as if each had been proven alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ingest.publish import Built
from schemas.columns import ColumnBlock, cut
from schemas.segments import SegmentName


def cut_built(whole: Built, sizes: Sequence[int]) -> list[Built]:
    """The segments of the parts of a range.

    Parameters
    ----------
    whole : Built
        The segments of the range. What their verdict says must hold of each part alone.
    sizes : sequence of int
        How many blocks each part has, in order.

    Returns
    -------
    list of Built
        One a part. Their columns share the memory of `whole`.
    """
    assert whole.blocks is not None
    blocks, logs = whole.blocks, whole.logs
    marks = list(accumulate(sizes, initial=0))
    hashes: Any = blocks.blocks.columns["block_hash"]
    heights = [whole.from_block + mark for mark in marks]
    tables = (blocks.transactions, blocks.withdrawals, logs.logs)
    bounds = [_bounds(table, heights) for table in tables]
    parts = []
    for at, (start, stop) in enumerate(pairwise(marks)):
        transactions, withdrawals, found = (
            _cut_rows(table, *ends[at : at + 2]) for table, ends in zip(tables, bounds, strict=True)
        )
        ends = heights[at], heights[at + 1] - 1, hashes[stop - 1].tobytes()
        own_blocks = replace(
            blocks,
            name=_renamed(blocks.name, *ends),
            blocks=_cut_rows(blocks.blocks, start, stop),
            transactions=transactions,
            withdrawals=withdrawals,
        )
        headers = _cut_rows(logs.headers, start, stop)
        own_logs = replace(logs, name=_renamed(logs.name, *ends), headers=headers, logs=found)
        parts.append(Built(own_blocks, own_logs))
    return parts


def _bounds(table: ColumnBlock, heights: Sequence[int]) -> list[int]:
    """The first row of each height, or where it would be; the rows are sorted by block number."""
    column: Any = table.columns["block_number"]
    found: list[int] = np.searchsorted(column, np.array(heights, column.dtype)).tolist()
    return found


def _cut_rows(table: ColumnBlock, start: int, stop: int) -> ColumnBlock:
    columns = {name: cut(column, start, stop) for name, column in table.columns.items()}
    return ColumnBlock(table.table, stop - start, columns)


def _renamed(name: SegmentName, first: int, last: int, last_hash: bytes) -> SegmentName:
    return replace(name, from_block=first, to_block=last, last_hash=last_hash)
