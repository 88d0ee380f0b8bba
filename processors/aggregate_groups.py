"""Rows with their keys in, the rows of each block and key together out; and their exact sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.columns import Bytes

Rows: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.uint32]
"""uint32[n, k]: k words a row; eight of them, lowest first, are a 256-bit number."""
Sums: TypeAlias = npt.NDArray[np.uint64]
"""uint64[n, k]: sums of words, not yet carried over."""

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
    ends: Rows
    """Where each group ends."""

    @property
    def first(self) -> Rows:
        """The first row of each group."""
        taken: Rows = self.order[self.starts]
        return taken

    @property
    def last(self) -> Rows:
        """The last row of each group."""
        taken: Rows = self.order[self.ends - 1]
        return taken

    @property
    def sizes(self) -> npt.NDArray[np.uint32]:
        """How many rows each group has."""
        return (self.ends - self.starts).astype(np.uint32)


def group_rows(numbers: npt.NDArray[np.uint64], leading: Sums, keys: Sums) -> Groups:
    """Bring the rows of each block and key together, block by block.

    Parameters
    ----------
    numbers
        uint64[n]: height of each row's block.
    leading
        uint64[n]: by which a block's groups are sorted before anything else; it follows from the
        key and, to be quick, should tell most keys apart by its upper 48 bits.
    keys
        uint64[n, k]: the whole keys.
    """
    offsets = numbers - numbers.min()
    if not int(offsets.max()) >> _OFFSET_BITS:
        word = offsets << np.uint64(64 - _OFFSET_BITS) | leading >> np.uint64(_OFFSET_BITS)
        order = word.argsort(kind="stable")
        ranked, key = word.take(order), keys.take(order, axis=0)
        new = ranked[1:] != ranked[:-1]
        # Where the words are equal the keys are, or rows of two keys may lie mixed.
        if not ((key[1:] != key[:-1]) & ~new[:, None]).any():
            return _groups(order, new)
    order = np.lexsort((*keys.T, leading, numbers))
    key, number = keys.take(order, axis=0), numbers.take(order)
    return _groups(order, (key[1:] != key[:-1]).any(axis=1) | (number[1:] != number[:-1]))


def _groups(order: Rows, new: Mask) -> Groups:
    """Groups begin at the first row, and at each that is not of the group of the row before."""
    edges = np.flatnonzero(new) + 1
    starts, ends = np.empty((2, len(edges) + 1), np.int64)
    starts[0], ends[-1] = 0, len(order)
    starts[1:] = ends[:-1] = edges
    return Groups(order, starts, ends)


def sum_words(numbers: npt.NDArray[Any], starts: Rows) -> Sums:
    """The sums of unsigned words over runs of rows; none may be longer than 2^31 rows."""
    wide = numbers.astype(np.uint64, copy=False)
    if len(starts) == len(wide):
        return wide
    sums: Sums = np.add.reduceat(wide, starts, axis=0)
    return sums


def sum_picked(numbers: npt.NDArray[Any], picked: Mask, groups: Groups) -> tuple[Sums, Words]:
    """The sums over those rows of each group that are picked, and how many these are.

    Parameters
    ----------
    numbers
        unsigned[n, k]: words in the groups' order.
    picked
        bool[n]: in the same order.
    """
    sums = np.zeros((len(groups.starts), numbers.shape[1]), np.uint64)
    counts = np.zeros(len(sums), np.uint32)
    at = np.flatnonzero(picked)
    if len(at):
        group = groups.starts.searchsorted(at, "right") - 1
        runs = _groups(at, group[1:] != group[:-1])
        holders = group[runs.starts]
        sums[holders] = sum_words(numbers[at], runs.starts)
        counts[holders] = runs.sizes
    return sums, counts


def carry_over(sums: Sums) -> tuple[Bytes, Mask]:
    """Sums of words as 256-bit numbers.

    Parameters
    ----------
    sums
        uint64[n, m, k]: m numbers a row, each of up to eight words, lowest first.

    Returns
    -------
    tuple of Bytes and Mask
        uint8[n, m, 32] the numbers modulo 2^256, little-endian; bool[n] whether any of a row's
        is 2^256 or more.
    """
    used = sums.shape[2]
    words = np.zeros((*sums.shape[:2], NUMBER_WORDS), "<u4")
    carry = sums[:, :, 0]
    for place in range(NUMBER_WORDS):
        if place:
            carry = carry + sums[:, :, place] if place < used else carry
        words[:, :, place] = carry & _WORD_MASK
        carry = carry >> _WORD_BITS
        if place >= used and not carry.any():
            break
    overflow: Mask = np.logical_or.reduce(carry, axis=1)
    return words.view(np.uint8), overflow


def used_words(numbers: npt.NDArray[Any]) -> int:
    """How many of the eight words of some numbers are looked at: half, if the rest is 0."""
    return NUMBER_WORDS if numbers[..., NUMBER_WORDS // 2 :].any() else NUMBER_WORDS // 2


def words_of(column: Bytes) -> Words:
    """A column of a fixed kind, whose width is a multiple of 4, as words."""
    return np.ascontiguousarray(column).view("<u4")


def is_zero(column: Bytes) -> Mask:
    """Which rows are all zeros: to numpy a text of such bytes is empty."""
    zero: Mask = np.ascontiguousarray(column).view(f"S{column.shape[1]}").ravel() == b""
    return zero


def leading_of(column: Bytes) -> Sums:
    """The first 8 bytes of each row, as the number that sorts as they do."""
    return np.ascontiguousarray(column[:, :8]).view(">u8").ravel().astype(np.uint64)


def key_of(width: int, *columns: Bytes) -> Sums:
    """uint64[n, width]: the bytes of all columns beside each other, filled up with zeros."""
    key = np.zeros((len(columns[0]), 8 * width), np.uint8)
    at = 0
    for column in columns:
        key[:, at : at + column.shape[1]] = column
        at += column.shape[1]
    return key.view("<u8")
