"""32-byte ABI words in, typed columns out, with a mask of the words that are no such value.

A word holds a value only if every bit beyond it is what its type asks for: zero, or the sign.
Source: Solidity documentation, "Contract ABI Specification", strict mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.abi import AbiType
from schemas.columns import Bytes

Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.int64]
WordReader: TypeAlias = Callable[[Bytes], tuple[npt.NDArray[Any], Mask | None]]
"""uint8[n, 32] → the column, and True where a word is no value of the type (None: nowhere)."""


def take_bytes(buffer: Bytes, positions: Positions, width: int) -> Bytes:
    """uint8[n, width]: the `width` bytes at each position, all of which lie within `buffer`."""
    if len(positions) == 0:
        return np.empty((0, width), np.uint8)
    windows = np.ndarray((len(buffer) - width + 1,), f"V{width}", buffer, 0, (1,))
    return windows[positions].view(np.uint8).reshape(-1, width)


@cache
def word_reader(abi_type: AbiType) -> WordReader:
    """The reader of a type that is one word."""
    if abi_type.base == "address":
        return _address
    if abi_type.base == "bool":
        return _bool
    if abi_type.base == "bytesN":
        return _bytes_reader(abi_type.width)
    if abi_type.base == "uint":
        return _uint_reader(abi_type.width)
    return _int_reader(abi_type.width)


def _rows_set(part: npt.NDArray[Any]) -> Mask | None:
    """Rows of `part` with any bit set, None where there are none (the usual, and cheap, case)."""
    if not part.any():
        return None
    mask: Mask = part.any(axis=1)
    return mask


def _address(words: Bytes) -> tuple[npt.NDArray[Any], Mask | None]:
    clean = not (words.view("<u8")[:, 0].any() or words.view("<u4")[:, 2].any())
    bad = None if clean else _rows_set(words[:, :12])
    return np.ascontiguousarray(words[:, 12:]), bad


def _bool(words: Bytes) -> tuple[npt.NDArray[Any], Mask | None]:
    values = np.ascontiguousarray(words[:, 31])
    if (values > 1).any() or words[:, :31].any():
        return values, (values > 1) | words[:, :31].any(axis=1)
    return values, None


def _bytes_reader(width: int) -> WordReader:
    def read(words: Bytes) -> tuple[npt.NDArray[Any], Mask | None]:
        bad = None if width == 32 else _rows_set(words[:, width:])
        return np.ascontiguousarray(words[:, :width]), bad

    return read


def _little_endian(words: Bytes) -> Bytes:
    turned: Bytes = words.view(">u8")[:, ::-1].astype("<u8").view(np.uint8)
    return turned


def _uint_reader(bits: int) -> WordReader:
    spare = 32 - bits // 8
    native = next((size for size in (8, 16, 32, 64) if bits <= size), None)

    def read(words: Bytes) -> tuple[npt.NDArray[Any], Mask | None]:
        if native is None:
            if spare == 0:
                return _little_endian(words), None
            high = words[:, :spare] if spare % 8 else words.view("<u8")[:, : spare // 8]
            return _little_endian(words), _rows_set(high)
        return words.view(">u8")[:, 3].astype(f"<u{native // 8}"), _rows_set(words[:, :spare])

    return read


def _int_reader(bits: int) -> WordReader:
    spare = 32 - bits // 8
    native = next((size for size in (8, 16, 32, 64) if bits <= size), None)

    def read(words: Bytes) -> tuple[npt.NDArray[Any], Mask | None]:
        bad = None
        if spare:
            sign = (words[:, spare].view(np.int8) >> 7).view(np.uint8)
            bad = _rows_set(words[:, :spare] ^ sign[:, None])
        if native is None:
            return _little_endian(words), bad
        return words.view(">i8")[:, 3].astype(f"<i{native // 8}"), bad

    return read
