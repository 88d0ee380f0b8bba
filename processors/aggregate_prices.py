"""Prices as exact fractions in, the highest and the lowest of each group out."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from processors.aggregate_groups import Rows
from schemas.columns import Bytes

Ratio: TypeAlias = npt.NDArray[np.float64]

_NEAR = 2.0**-40
"""The float ratio of two 256-bit numbers errs by less than 2^-48 of itself. It may rule out what
is farther from the extreme than this, and decides nothing else."""
_SCALE = np.array([2.0**0, 2.0**64, 2.0**128, 2.0**192])


def find_extremes(
    numerators: Bytes, denominators: Bytes, starts: Rows, ends: Rows
) -> tuple[Rows, Rows]:
    """Where the highest and the lowest price of each group stand; of equal ones the first.

    Parameters
    ----------
    numerators, denominators
        uint8[n, 32] little-endian, group by group; no denominator is 0.
    starts, ends
        Where each group begins and ends.

    Returns
    -------
    tuple of Rows
        Positions of the highest and of the lowest.
    """
    if len(starts) == len(numerators):
        return starts, starts
    ratios = _rounded(numerators) / _rounded(denominators)
    sizes = ends - starts
    highest = (np.maximum.reduceat(ratios, starts) * (1 - _NEAR)).repeat(sizes)
    lowest = (np.minimum.reduceat(ratios, starts) * (1 + _NEAR)).repeat(sizes)
    high = _first_best(ratios >= highest, numerators, denominators, starts)
    low = _first_best(ratios <= lowest, denominators, numerators, starts)
    return high, low


def _rounded(numbers: Bytes) -> Ratio:
    """256-bit numbers to the nearest float or the next."""
    words = np.ascontiguousarray(numbers).view("<u8")
    rounded: Ratio = words.astype(np.float64) @ _SCALE
    return rounded


def _first_best(
    near: npt.NDArray[np.bool_], numerators: Bytes, denominators: Bytes, starts: Rows
) -> Rows:
    """The first of the greatest fractions of each group among the rows that are near it."""
    at = np.flatnonzero(near)
    first = at.searchsorted(starts)
    best: Rows = at[first]
    if len(at) > len(starts):
        last = np.concatenate([first[1:], [len(at)]])
        for group in np.flatnonzero(last - first > 1).tolist():
            rivals = at[first[group] : last[group]].tolist()
            best[group] = _first_greatest(rivals, numerators, denominators)
    return best


def _first_greatest(rivals: list[int], numerators: Bytes, denominators: Bytes) -> int:
    """Which of some rows has the greatest fraction, by unbounded integers."""
    best, over, under = -1, -1, 1
    for row in rivals:
        numerator = int.from_bytes(numerators[row].tobytes(), "little")
        denominator = int.from_bytes(denominators[row].tobytes(), "little")
        if numerator * under > over * denominator:
            best, over, under = row, numerator, denominator
    return best
