"""Kind text in (``?bytes32``, ``[u256]``), parsed column kinds out.

Grammar: ``u8 u16 u32 u64 i8 i16 i32 i64 bool time enum8(name=0,…)`` are fixed-width numbers;
``bytesN`` are N bytes in chain order; ``u256 i256`` are 32 bytes little-endian two's complement;
``bytes string`` are of any length; ``?kind`` may be null; ``[kind]`` is a list; ``(a,b)`` a tuple.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

_NUMBERS = {
    "u8": ("<u1", "UInt8"),
    "u16": ("<u2", "UInt16"),
    "u32": ("<u4", "UInt32"),
    "u64": ("<u8", "UInt64"),
    "i8": ("<i1", "Int8"),
    "i16": ("<i2", "Int16"),
    "i32": ("<i4", "Int32"),
    "i64": ("<i8", "Int64"),
    "bool": ("<u1", "Bool"),
    "time": ("<u4", "DateTime('UTC')"),
}
_WIDE = {"u256": "UInt256", "i256": "Int256"}


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a column's values."""

    text: str
    """The kind as written, in the grammar of this module."""
    shape: str
    """One of ``number``, ``fixed``, ``ragged``, ``nullable``, ``list``, ``tuple``."""
    clickhouse_type: str
    """The ClickHouse type that holds it, for example ``FixedString(32)``."""
    dtype: np.dtype[np.generic] | None = None
    """numpy type of a ``number``, little-endian; uint8 for ``fixed`` and ``ragged``."""
    width: int = 0
    """Bytes of one value of a ``number`` or ``fixed`` kind, else 0."""
    children: tuple[Kind, ...] = ()
    """Kind under a ``nullable`` or ``list``, or the kinds of a ``tuple``."""


@cache
def parse_kind(text: str) -> Kind:
    """Parse a kind.

    Raises
    ------
    ValueError
        If `text` is not of the grammar of this module.
    """
    if text in _NUMBERS:
        dtype = np.dtype(_NUMBERS[text][0])
        return Kind(text, "number", _NUMBERS[text][1], dtype, dtype.itemsize)
    if text in _WIDE:
        return Kind(text, "fixed", _WIDE[text], np.dtype(np.uint8), 32)
    if text in ("bytes", "string"):
        return Kind(text, "ragged", "String", np.dtype(np.uint8))
    if fixed := re.fullmatch(r"bytes([1-9]\d*)", text):
        width = int(fixed[1])
        return Kind(text, "fixed", f"FixedString({width})", np.dtype(np.uint8), width)
    if enum := re.fullmatch(r"enum8\((\w+=\d+(?:,\w+=\d+)*)\)", text):
        names = (pair.split("=") for pair in enum[1].split(","))
        inner = ", ".join(f"'{name}' = {value}" for name, value in names)
        return Kind(text, "number", f"Enum8({inner})", np.dtype("<i1"), 1)
    if text.startswith("?"):
        child = parse_kind(text[1:])
        if child.shape not in ("number", "fixed", "ragged"):
            raise ValueError(f"{text!r}: a list or a tuple cannot be null")
        return Kind(text, "nullable", f"Nullable({child.clickhouse_type})", children=(child,))
    if text.startswith("[") and text.endswith("]"):
        child = parse_kind(text[1:-1])
        return Kind(text, "list", f"Array({child.clickhouse_type})", children=(child,))
    if text.startswith("(") and text.endswith(")"):
        children = tuple(parse_kind(part) for part in _split(text[1:-1]))
        inner = ", ".join(child.clickhouse_type for child in children)
        return Kind(text, "tuple", f"Tuple({inner})", children=children)
    raise ValueError(f"{text!r} is not a column kind")


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside every bracket."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        if letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
