"""A kind and a seed in, a column of random values of that kind out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from schemas.columns import Column, ColumnBlock, Nullable, Ragged, Struct
from schemas.kinds import Kind
from schemas.tables import Table


def random_column(kind: Kind, rows: int, rng: np.random.Generator, longest: int = 5) -> Column:
    """`rows` random values; ragged ones have up to `longest` elements, a few many more."""
    if kind.text.startswith("enum8"):
        values = [int(value) for value in re.findall(r"=(\d+)", kind.text)]
        return np.array(values, np.int8)[rng.integers(0, len(values), rows)]
    if kind.text == "bool":
        return rng.integers(0, 2, rows, dtype=np.uint8)
    if kind.shape == "number":
        assert kind.dtype is not None
        raw = rng.integers(0, 256, rows * kind.width, dtype=np.uint8)
        return raw.view(kind.dtype)
    if kind.shape == "fixed":
        return rng.integers(0, 256, (rows, kind.width), dtype=np.uint8)
    if kind.shape in ("ragged", "list"):
        lengths = rng.integers(0, longest + 1, rows)
        if kind.shape == "ragged" and rows:
            lengths[rng.integers(0, rows)] = 300
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        total = int(offsets[-1])
        if kind.shape == "ragged":
            return Ragged(offsets, rng.integers(0, 256, total, dtype=np.uint8))
        return Ragged(offsets, random_column(kind.children[0], total, rng, longest))
    if kind.shape == "nullable":
        valid = rng.integers(0, 2, rows).astype(np.bool_)
        values: Any = random_column(kind.children[0], rows, rng, longest)
        if isinstance(values, Ragged):
            lengths = np.where(valid, np.diff(values.offsets), 0)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            return Nullable(valid, Ragged(offsets, values.values[: int(offsets[-1])]))
        values[~valid] = 0
        return Nullable(valid, values)
    return Struct(tuple(random_column(child, rows, rng, longest) for child in kind.children))


def random_block(
    table: Table, rows: int, seed: int, first_block: int = 0, blocks: int = 10
) -> ColumnBlock:
    """Random rows of `table` in `blocks` blocks from `first_block` on, with distinct identities."""
    rng = np.random.default_rng(seed)
    columns = {spec.name: random_column(spec.kind, rows, rng) for spec in table.columns}
    numbers = np.sort(rng.integers(first_block, first_block + blocks, rows)).astype("<u8")
    columns["block_number"] = numbers
    for name in ("log_index", "transaction_index", "position"):
        if name in columns:
            positions = np.arange(rows, dtype="<u4")
            may_be_null = table.column(name).kind.shape == "nullable"
            columns[name] = (
                Nullable(np.ones(rows, np.bool_), positions) if may_be_null else positions
            )
    return ColumnBlock(table.name, rows, columns)
