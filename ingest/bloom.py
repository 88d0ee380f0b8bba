"""Addresses and topics in, the 2048-bit blooms of their logs out.

Source: Ethereum Yellow Paper, section 4.3.1 (three bits a value, from its keccak).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingest.keccak import keccak
from schemas.columns import Bytes

BLOOM_BITS = 2048
_REMEMBERED_MAX = 1 << 17
_ROWS_AT_ONCE = 4096

_remembered: dict[bytes, int] = {}
"""Bits of values seen before: three of 11 bits each in one int. Tokens and topics recur."""


def _bits(value: bytes) -> int:
    digest = keccak(value)
    # Bit 0 is the lowest bit of the last byte; numpy unpacks from the highest of the first.
    first, second, third = (
        BLOOM_BITS - 1 - (int.from_bytes(digest[at : at + 2], "big") & (BLOOM_BITS - 1))
        for at in (0, 2, 4)
    )
    packed = first << 22 | second << 11 | third
    if len(_remembered) >= _REMEMBERED_MAX:
        _remembered.clear()
    _remembered[value] = packed
    return packed


def bloom_positions(values: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """The three bits of each value.

    Parameters
    ----------
    values : sequence of bytes
        Addresses and topics.

    Returns
    -------
    int64[n, 3]
        Indexes into ``np.unpackbits`` of a bloom.
    """
    known = list(map(_remembered.get, values))
    if None in known:
        pairs = zip(values, known, strict=True)
        known = [_bits(value) if bits is None else bits for value, bits in pairs]
    packed = np.array(known, np.int64)
    return np.stack((packed >> 22, packed >> 11 & 0x7FF, packed & 0x7FF), axis=1)


def blooms(values: Sequence[bytes], owners: npt.NDArray[np.int64], count: int) -> Bytes:
    """The blooms of `count` owners, receipts for example.

    Parameters
    ----------
    values : sequence of bytes
        Addresses and topics.
    owners : int64[n]
        Which owner each value belongs to.
    count : int
        Number of owners.

    Returns
    -------
    uint8[count, 256]
        One bloom an owner; zeros for an owner without values.
    """
    positions = bloom_positions(values)
    packed = np.empty((count, BLOOM_BITS // 8), np.uint8)
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, count)
        bits = np.zeros((stop - start, BLOOM_BITS), np.bool_)
        if stop - start == count:
            bits[owners[:, None], positions] = True
        else:
            inside = (owners >= start) & (owners < stop)
            bits[owners[inside, None] - start, positions[inside]] = True
        packed[start:stop] = np.packbits(bits, axis=1)
    return packed


def covers(bloom: bytes, values: Sequence[bytes]) -> npt.NDArray[np.bool_]:
    """Whether a bloom may hold each value; False means that it certainly does not.

    Parameters
    ----------
    bloom : bytes
        256 bytes.
    values : sequence of bytes
        Addresses and topics.

    Returns
    -------
    bool[n]
    """
    bits = np.unpackbits(np.frombuffer(bloom, np.uint8)).view(np.bool_)
    covered: npt.NDArray[np.bool_] = np.all(bits[bloom_positions(values)], axis=1)
    return covered
