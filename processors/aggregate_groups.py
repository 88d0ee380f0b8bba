"""Rows with their keys in, the rows of each block and key together out; and their exact sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.columns import Bytes

Rows: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint32]
"""uint32[n, k]: k words a row; eight of them, lowest first, are a 256-bit number."""

NUMBER_WORDS = 8
"""Words of a 256-bit number."""
_OFFSET_BITS = 16
_WORD_BITS, _WORD_MASK = np.uint64(32), np.uint64((1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows in the order of their groups; there is at least one."""

    order: Rows
    """The rows, group by group; those of one group in the order in which they came."""
    starts: Rows
    """Where each group begins in `order`."""

    @property
    def first(self) -> Rows:
        """The first row of each group."""
        taken: Rows = self.order[self.starts]
        return taken

    @property
    def last(self) -> Rows:
        """The last row of each group."""
        taken: Rows = self.order[np.append(self.starts[1:], len(self.order)) - 1]
        return taken

    @property
    def sizes(self) -> npt.NDArray[np.uint32]:
        """How many rows each group has."""
        return np.diff(self.starts, append=len(self.order)).astype(np.uint32)


def group_rows(
    numbers: npt.NDArray[np.uint64], leading: npt.NDArray[np.uint64], keys: Words
) -> Groups:
    """Bring the rows of each block and key together, block by block.

    Parameters
    ----------
    numbers
        uint64[n]: height of each row's block.
    leading
        uint64[n]: by which a block's groups are sorted before anything else; it follows from the
        key and, to be quick, should tell most keys apart by its upper 48 bits.
    keys
        uint32[n, k]: the whole keys.
    """
    offsets = numbers - numbers.min()
    if not int(offsets.max()) >> _OFFSET_BITS:
        word = offsets << np.uint64(64 - _OFFSET_BITS) | leading >> np.uint64(_OFFSET_BITS)
        order = word.argsort(kind="stable")
        ranked, key = word.take(order), keys.take(order, axis=0)
        new = ranked[1:] != ranked[:-1]
        # Where the words are equal the keys are, or rows of two keys may lie mixed.
        if not (key[1:] != key[:-1])[~new].any():
            return Groups(order, _starts(new))
    order = np.lexsort((*keys.T, leading, numbers))
    key, number = keys.take(order, axis=0), numbers.take(order)
    return Groups(order, _starts((key[1:] != key[:-1]).any(axis=1) | (number[1:] != number[:-1])))


def _starts(new: npt.NDArray[np.bool_]) -> Rows:
    """The first row, and each that is not of the group of the row before."""
    return np.append(np.zeros(1, np.int64), np.flatnonzero(new) + 1)


def sum_groups(groups: Groups, numbers: npt.NDArray[Any]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The sums of 256-bit numbers over each group.

    Parameters
    ----------
    numbers
        unsigned[n, m * 8]: m numbers a row, each as eight words of 32 bits or little more, lowest
        first.

    Returns
    -------
    tuple of Bytes and bool array
        uint8[groups, m, 32] the sums modulo 2^256, little-endian; bool[groups] whether any of a
        group's sums is 2^256 or more.
    """
    ordered = numbers.take(groups.order, axis=0)
    if len(groups.starts) < len(groups.order):
        ordered = np.add.reduceat(ordered, groups.starts, axis=0, dtype=np.uint64)
    sums = ordered.astype(np.uint64, copy=False).reshape(len(groups.starts), -1, NUMBER_WORDS)
    words = np.empty(sums.shape, "<u4")
    carry = np.zeros(sums.shape[:2], np.uint64)
    for place in range(NUMBER_WORDS):
        carry += sums[:, :, place]
        words[:, :, place] = carry & _WORD_MASK
        carry >>= _WORD_BITS
    overflow: npt.NDArray[np.bool_] = np.logical_or.reduce(carry, axis=1)
    return words.view(np.uint8), overflow


def words_of(column: Bytes) -> Words:
    """A column of a fixed kind, whose width is a multiple of 4, as words."""
    return np.ascontiguousarray(column).view("<u4")


def any_bits(words: Words) -> npt.NDArray[np.bool_]:
    """Which rows are not zero."""
    found: npt.NDArray[np.bool_] = np.bitwise_or.reduce(words, axis=1) != 0
    return found


def leading_of(column: Bytes) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each row, as the number that sorts as they do."""
    return np.ascontiguousarray(column[:, :8]).view(">u8").ravel().astype(np.uint64)
