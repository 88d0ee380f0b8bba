"""RLP equals the reference library on anything."""

from __future__ import annotations

import pytest
import rlp
from hypothesis import given
from hypothesis import strategies as st

from ingest.rlp import (
    bytes_prefix,
    encode_bytes,
    encode_list,
    encode_uint,
    frame_bytes,
    frame_lists,
)

EDGES = [0, 1, 55, 56, 57, 255, 256, 257, 4095, 4096, 65_535, 65_536, 70_000]


@given(st.binary(max_size=300))
def test_bytes_equal_the_reference(value: bytes) -> None:
    assert encode_bytes(value) == rlp.encode(value)


@given(st.integers(0, 2**256 - 1))
def test_integers_equal_the_reference(value: int) -> None:
    assert encode_uint(value) == rlp.encode(value)


@pytest.mark.parametrize("size", EDGES)
def test_lengths_at_the_edges(size: int) -> None:
    value = b"\xab" * size
    assert encode_bytes(value) == rlp.encode(value)
    assert encode_list([b"\x05"] * size) == rlp.encode([5] * size)
    if size > 1:
        assert bytes_prefix(size) + value == rlp.encode(value)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**64 - 1, 2**64, 2**256 - 1])
def test_integers_at_the_edges(value: int) -> None:
    assert encode_uint(value) == rlp.encode(value)


def test_a_negative_integer_has_no_encoding() -> None:
    with pytest.raises(OverflowError):
        encode_uint(-1)


Nested = st.recursive(st.binary(max_size=70), lambda inner: st.lists(inner, max_size=6))


def _encode(value: bytes | list) -> bytes:
    return encode_bytes(value) if isinstance(value, bytes) else encode_list(map(_encode, value))


@given(Nested)
def test_nested_lists_equal_the_reference(value: bytes | list) -> None:
    assert _encode(value) == rlp.encode(value)
    assert rlp.decode(_encode(value)) == value


@given(st.lists(st.integers(0, 2**256 - 1), max_size=20))
def test_many_integers_at_once(values: list[int]) -> None:
    digits = [value.to_bytes((value.bit_length() + 7) // 8, "big") for value in values]
    assert frame_bytes(digits) == [encode_uint(value) for value in values]


def test_many_values_at_once() -> None:
    values = [bytes([size % 256]) * size for size in (*EDGES, 1, 1)] + [b"\x7f", b"\x80"]
    assert frame_bytes(values) == [rlp.encode(value) for value in values]
    assert frame_lists([b"\x05" * size for size in EDGES]) == [
        rlp.encode([5] * size) for size in EDGES
    ]
