"""Ordered roots equal those of a plain trie, written here after the Yellow Paper."""

from __future__ import annotations

from random import Random

import pytest
import rlp
from hypothesis import given
from hypothesis import strategies as st

from ingest.keccak import keccak
from ingest.trie import EMPTY_ROOT, ordered_root

Pairs = list[tuple[list[int], bytes]]

COUNTS = [*range(1, 40), 127, 128, 129, 130, 143, 144, 145, 255, 256, 257, 272, 273, 300, 4097]
SIZES = {
    "inline": (1, 2, 3, 8),
    "edge": (1, 26, 27, 28, 29, 30, 31, 32, 33, 54, 55, 56, 57),
    "hashed": (110, 200, 600, 5000),
}


def _nibbles(key: bytes) -> list[int]:
    return [nibble for byte in key for nibble in (byte >> 4, byte & 15)]


def _packed(nibbles: list[int], leaf: bool) -> bytes:
    odd = len(nibbles) & 1
    head = [2 * leaf + odd] if odd else [2 * leaf, 0]
    padded = head + nibbles
    return bytes(16 * a + b for a, b in zip(padded[::2], padded[1::2], strict=True))


def _node(pairs: Pairs, depth: int) -> list | bytes:
    if not pairs:
        return b""
    if len(pairs) == 1:
        key, value = pairs[0]
        return [_packed(key[depth:], True), value]
    fork = depth
    while all(len(key) > fork and key[fork] == pairs[0][0][fork] for key, _ in pairs):
        fork += 1
    if fork > depth:
        return [_packed(pairs[0][0][depth:fork], False), _reference(_node(pairs, fork))]
    children = [
        _reference(_node([pair for pair in pairs if pair[0][depth] == nibble], depth + 1))
        for nibble in range(16)
    ]
    return [*children, b""]


def _reference(node: list | bytes) -> list | bytes:
    if node == b"":
        return node
    encoded = rlp.encode(node)
    return node if len(encoded) < 32 else keccak(encoded)


def plain_root(values: list[bytes]) -> bytes:
    pairs = [(_nibbles(rlp.encode(index)), value) for index, value in enumerate(values)]
    return keccak(rlp.encode(_node(pairs, 0)))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_root_equals_the_plain_trie(count: int, sizes: str) -> None:
    dice = Random(count)
    values = [dice.randbytes(dice.choice(SIZES[sizes])) for _ in range(count)]
    assert ordered_root(values) == plain_root(values)


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=40))
def test_any_values(values: list[bytes]) -> None:
    assert ordered_root(values) == plain_root(values)


def test_no_values_have_the_well_known_root() -> None:
    known = "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    assert ordered_root([]).hex() == EMPTY_ROOT.hex() == known


def test_an_empty_value_is_refused() -> None:
    with pytest.raises(ValueError, match="empty value"):
        ordered_root([b"a", b""])


def test_order_and_every_byte_count() -> None:
    values = [bytes([index]) * 40 for index in range(20)]
    root = ordered_root(values)
    swapped = [values[1], values[0], *values[2:]]
    assert ordered_root(swapped) != root
    for index in range(20):
        altered = list(values)
        altered[index] = altered[index][:-1] + b"\xff"
        assert ordered_root(altered) != root
    assert ordered_root(values[:-1]) != root
