"""Texts of several columns of quantities in, their bytes out: all decoded in one pass.

At some hundred rows a column costs its calls and its list of texts, not its digits. So the columns
of a table are joined to one text, whose marks numpy finds, and decoded as one or two arrays.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import Bytes

NARROW, WIDE = 16, 64
"""Hex digits of the numbers of 8 and of 32 bytes."""
_COMMA = ord(",")


def _masks(width: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """By number of digits: the bits of those digits at the end, and zeros as text before them."""
    own = np.arange(width) >= width - np.arange(width + 1)[:, None]
    keep = np.where(own, 0xFF, 0).astype(np.uint8)
    fill = np.where(own, 0, ord("0")).astype(np.uint8)
    return keep.view(np.uint64), fill.view(np.uint64)


_MASKS = {width: _masks(width) for width in (NARROW, WIDE)}


def decode_together(columns: Sequence[Sequence[str]]) -> list[Bytes] | None:
    """Decode columns of quantities.

    Parameters
    ----------
    columns : sequence of sequences of str
        The texts of each column; none of them empty.

    Returns
    -------
    list of uint8[n, 8] or uint8[n, 32], or None
        Big-endian numbers of each column, of 32 bytes where 8 do not hold them. None where one
        text is not 0x and one to 64 hex digits.
    """
    flat = list(chain.from_iterable(columns))
    if not flat:
        return []
    try:
        # What stands before the first text is read, and masked, with its digits.
        text = ("0" * WIDE + ",".join(flat) + ",").encode("ascii")
        codes = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(codes == _COMMA)
        if len(ends) != len(flat):
            return None
        starts = np.empty_like(ends)
        starts[0] = WIDE
        starts[1:] = ends[:-1] + 1
        sizes = ends - starts - 2
        if int(sizes.min()) < 1 or int(sizes.max()) > WIDE:
            return None
        if _taken(text, starts, 2).tobytes() != b"0x" * len(flat):
            return None
        counts = list(map(len, columns))
        firsts = list(accumulate(counts[:-1], initial=0))
        widths = np.where(np.maximum.reduceat(sizes, firsts) > NARROW, WIDE, NARROW)
        decoded = {}
        for width in {*widths.tolist()}:
            own = np.repeat(widths == width, counts)
            decoded[width] = _decode(text, ends[own], sizes[own], width)
    except ValueError:
        return None
    found = []
    at = {NARROW: 0, WIDE: 0}
    for width, count in zip(widths.tolist(), counts, strict=True):
        found.append(decoded[width][at[width] : at[width] + count])
        at[width] += count
    return found


def _taken(text: bytes, at: npt.NDArray[np.int64], width: int) -> Bytes:
    """The `width` characters from each place on, one row a place."""
    # One-byte strides: each place is the start of an item, taken by a single copy.
    items: Any = np.ndarray((len(text) - width + 1,), f"V{width}", text, strides=(1,))
    taken: Bytes = items[at].view(np.uint8).reshape(len(at), width)
    return taken


def _decode(
    text: bytes, ends: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], width: int
) -> Bytes:
    """Numbers that end before `ends` and have `sizes` digits; ValueError where one is no digit."""
    keep, fill = _MASKS[width]
    words = _taken(text, ends - width, width).view(np.uint64)
    words = words & keep.take(sizes, axis=0) | fill.take(sizes, axis=0)
    return np.frombuffer(unhexlify(words.data), np.uint8).reshape(len(ends), width >> 1)
