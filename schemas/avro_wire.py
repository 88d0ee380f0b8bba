"""Avro's binary encoding of what segments are made of: values in, bytes out, and back, uncopied.

Buffers go from the columns to the message in one join, and columns are views of the message.
Only what segments use is here: long, string, bytes, fixed, enum, and arrays in one block.

Source: Avro specification 1.12, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from schemas.columns import Column, ColumnBlock, Part, Span, buffers_of, from_spans, plain_column
from schemas.kinds import Kind, parse_kind
from schemas.tables import Table

Symbol = TypeVar("Symbol")
LONG_BYTES_MAX = 10
END, ONE = b"\0", 2
"""What ends an array; what stands before a block of one item."""


@lru_cache(maxsize=1 << 14)
def long_bytes(value: int) -> bytes:
    """A long: zigzag, seven bits a byte, the lowest first."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


@lru_cache(maxsize=1 << 12)
def text_bytes(text: str) -> bytes:
    """A string."""
    raw = text.encode()
    return long_bytes(len(raw)) + raw


def texts_bytes(texts: Sequence[str]) -> bytes:
    """An array of strings."""
    if not texts:
        return END
    return long_bytes(len(texts)) + b"".join(map(text_bytes, texts)) + END


def put_buffers(parts: list[Part], kind: Kind, column: Column) -> None:
    """A column's buffers, each as bytes."""
    for buffer in buffers_of(kind, column):
        parts.append(long_bytes(buffer.nbytes))
        parts.append(buffer)


def put_rows(parts: list[Part], table: Table, block: ColumnBlock) -> None:
    """A block as the record of a table whose columns the schema names."""
    parts.append(long_bytes(block.rows))
    for spec in table.columns:
        put_buffers(parts, spec.kind, block.columns[spec.name])


def put_described(parts: list[Part], table: Table | None, block: ColumnBlock) -> None:
    """A block as a record that describes its own columns; `table` declares them."""
    parts.append(text_bytes(block.table) + long_bytes(block.rows))
    if block.rows and table is not None:
        parts.append(long_bytes(len(table.columns)))
        for spec in table.columns:
            parts.append(_described(spec.name, spec.kind_text))
            put_buffers(parts, spec.kind, block.columns[spec.name])
            parts.append(END)
    parts.append(END)


@lru_cache(maxsize=1 << 12)
def _described(name: str, kind_text: str) -> bytes:
    """What stands before a described column's buffers."""
    buffers = long_bytes(buffer_count(parse_kind(kind_text)))
    return text_bytes(name) + text_bytes(kind_text) + buffers


def buffer_count(kind: Kind) -> int:
    """How many buffers a column of this kind has."""
    if kind.shape in ("number", "fixed"):
        return 1
    own = {"ragged": 2, "list": 1, "nullable": 1, "tuple": 0}[kind.shape]
    return own + sum(buffer_count(child) for child in kind.children)


@lru_cache(maxsize=1 << 8)
def _buffers_of_kinds(kind_texts: tuple[str, ...]) -> int:
    return sum(buffer_count(parse_kind(text)) for text in kind_texts)


def take_long(value: bytes, at: int) -> tuple[int, int]:
    """The long at `at`, and where it ends."""
    rest = value[at]
    at += 1
    if rest > 0x7F:
        byte = value[at]
        at += 1
        rest += (byte << 7) - 0x80
        shift = 14
        while byte > 0x7F:
            if shift >= 7 * LONG_BYTES_MAX:
                raise ValueError("a number of more than 64 bits")
            byte = value[at]
            at += 1
            rest += (byte - 1) << shift
            shift += 7
    return (rest >> 1) ^ -(rest & 1), at


def take_spans(value: bytes, at: int, count: int) -> tuple[list[Span], int]:
    """Where the next `count` strings or buffers lie in the message."""
    found = []
    for _ in range(count):
        size, start = take_long(value, at)
        at = start + size
        if size < 0 or at > len(value):
            raise ValueError(f"a length of {size} bytes")
        found.append((value, start, at))
    return found, at


def take_text(value: bytes, at: int) -> tuple[str, int]:
    """The string at `at`, and where it ends."""
    [(_, start, end)], at = take_spans(value, at, 1)
    return value[start:end].decode(), at


def take_symbol(value: bytes, at: int, symbols: Sequence[Symbol]) -> tuple[Symbol, int]:
    """The enum's symbol at `at`, and where it ends."""
    index, at = take_long(value, at)
    if not 0 <= index < len(symbols):
        raise ValueError(f"an enum's symbol {index}")
    return symbols[index], at


def take_count(value: bytes, at: int) -> tuple[int, int]:
    """How many items an array's next block has, and where they begin; 0 at the array's end."""
    count, at = take_long(value, at)
    if count < 0:  # the block's size in bytes follows
        _, at = take_long(value, at)
    return abs(count), at


def take_texts(value: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """The array of strings at `at`, and where it ends."""
    spans, at = _take_array(value, at)
    return tuple(value[start:end].decode() for _, start, end in spans), at


def _take_array(value: bytes, at: int) -> tuple[list[Span], int]:
    """The strings or buffers of an array."""
    found: list[Span] = []
    while True:
        count, at = take_count(value, at)
        if not count:
            return found, at
        more, at = take_spans(value, at, count)
        found += more


def take_rows(value: bytes, at: int, table: Table) -> tuple[ColumnBlock, int]:
    """The record that `put_rows` wrote, and where it ends."""
    rows, at = take_long(value, at)
    kind_texts = tuple(spec.kind_text for spec in table.columns)
    found, at = take_spans(value, at, _buffers_of_kinds(kind_texts))
    spans = iter(found)
    columns = {spec.name: from_spans(spec.kind, rows, spans) for spec in table.columns}
    return ColumnBlock(table.name, rows, columns), at


def take_described(value: bytes, at: int) -> tuple[ColumnBlock, int]:
    """The record that `put_described` wrote, and where it ends."""
    name, at = take_text(value, at)
    rows, at = take_long(value, at)
    columns: dict[str, Column] = {}
    while True:
        count, at = take_count(value, at)
        if not count:
            return ColumnBlock(name, rows, columns), at
        for _ in range(count):
            at = _take_column(value, at, rows, columns)


def _take_column(value: bytes, at: int, rows: int, columns: dict[str, Column]) -> int:
    """Add the described column at `at`; returns where it ends."""
    size, kind_at = take_long(value, at)
    kind_at += size
    size, kind_end = take_long(value, kind_at)
    kind_end += size
    name, kind, plain = _column_named(value[at:kind_end])
    if plain and value[kind_end] == ONE:
        size, start = take_long(value, kind_end + 1)
        end = start + size
        if value[end] == 0:
            columns[name] = plain_column(kind, rows, value, start, end)
            return end + 1
    spans, at = _take_array(value, kind_end)
    columns[name] = from_spans(kind, rows, iter(spans))
    return at


@lru_cache(maxsize=1 << 12)
def _column_named(described: bytes) -> tuple[str, Kind, bool]:
    """A described column's name and kind, and whether it has but one buffer."""
    name, at = take_text(described, 0)
    kind_text, _ = take_text(described, at)
    kind = parse_kind(kind_text)
    return name, kind, kind.shape in ("number", "fixed")
