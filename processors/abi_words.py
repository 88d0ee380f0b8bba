"""32-byte ABI words in, typed columns out; apart from them, which words are no such value.

A word holds a value only if every bit beyond it is what its type asks for: zero, or the sign.
Source: Solidity documentation, "Contract ABI Specification", strict mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.abi import AbiType
from schemas.columns import Bytes

Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.int64]

_NATIVE_BITS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Word:
    """How words of a type are read and checked; uint8[n, 32] goes in."""

    read: Callable[[Bytes], npt.NDArray[Any]]
    """The column; words that are no values of the type give anything."""
    clear: int
    """The bits that must be 0 in the word as a little-endian number; 0 where none must be."""
    sign_at: int | None
    """The byte whose top bit every byte before it must repeat; None where there is no such."""

    def wrong(self, words: Bytes) -> Mask | None:
        """bool[n]: which words are no values of the type; None where all are (the cheap case)."""
        if self.sign_at is not None:
            sign = (words[:, self.sign_at].view(np.int8) >> 7).view(np.uint8)
            extra: npt.NDArray[Any] = words[:, : self.sign_at] ^ sign[:, None]
        elif self.clear:
            extra = words.view("<u8") & clear_words((self.clear,))
        else:
            return None
        if not extra.any():
            return None
        found: Mask = np.asarray(extra.any(axis=1))
        return found


@cache
def clear_words(masks: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """uint64[4 * n]: the bits of n consecutive words that must be 0."""
    return np.frombuffer(b"".join(mask.to_bytes(32, "little") for mask in masks), "<u8")


@cache
def word_of(abi_type: AbiType) -> Word:
    """How values of a type that is one word are read and checked."""
    width = abi_type.width
    if abi_type.base == "address":
        return Word(lambda words: np.ascontiguousarray(words[:, 12:]), _bytes_set(0, 12), None)
    if abi_type.base == "bool":
        but_lowest = _bytes_set(0, 31) | 0xFE << 248
        return Word(lambda words: np.ascontiguousarray(words[:, 31]), but_lowest, None)
    if abi_type.base == "bytesN":
        return Word(
            lambda words: np.ascontiguousarray(words[:, :width]), _bytes_set(width, 32), None
        )
    spare = 32 - width // 8
    native = next((bits for bits in _NATIVE_BITS if width <= bits), None)
    if abi_type.base == "uint":
        read = _little_endian if native is None else _native_reader(f"<u{native // 8}")
        return Word(read, _bytes_set(0, spare), None)
    read = _little_endian if native is None else _native_reader(f"<i{native // 8}")
    return Word(read, 0, spare or None)


def _bytes_set(start: int, end: int) -> int:
    """Bytes `start` to `end` of a word, all bits set, as a little-endian number."""
    return (1 << 8 * end) - (1 << 8 * start)


def _little_endian(words: Bytes) -> Bytes:
    turned: Bytes = words.view(">u8")[:, ::-1].astype("<u8").view(np.uint8)
    return turned


def _native_reader(dtype: str) -> Callable[[Bytes], npt.NDArray[Any]]:
    """The low bytes of the word, which hold the two's complement of every value that fits."""
    return lambda words: words.view(">i8")[:, 3].astype(dtype)


def take_bytes(buffer: Bytes, positions: Positions, width: int) -> Bytes:
    """uint8[n, width]: the `width` bytes at each position, all of which lie within `buffer`."""
    if len(positions) == 0:
        return np.empty((0, width), np.uint8)
    windows = np.ndarray((len(buffer) - width + 1,), f"V{width}", buffer, 0, (1,))
    return windows[positions].view(np.uint8).reshape(-1, width)
