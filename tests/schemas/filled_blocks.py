"""Tables in, blocks with a few rows out."""

from __future__ import annotations

from schemas.columns import ColumnBlock, from_python
from schemas.tables import Table


def filled(table: Table) -> ColumnBlock:
    """A block of two rows with zeros, and nulls in the second row."""
    columns = {}
    for spec in table.columns:
        kind, zero = spec.kind, None
        if kind.shape == "nullable":
            values = [zero_of(kind.children[0].text), None]
        else:
            zero = zero_of(kind.text)
            values = [zero, zero]
        columns[spec.name] = from_python(kind, values)
    return ColumnBlock(table.name, 2, columns)


def zero_of(text: str) -> object:
    """A value of the kind that is zero, or as good as."""
    if text.startswith("["):
        return []
    if text in ("bytes", "string"):
        return b"ab"
    if text.startswith("bytes"):
        return bytes(int(text[5:]))
    return 0
