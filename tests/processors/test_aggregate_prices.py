"""The highest and the lowest fraction of each group, against unbounded fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.aggregate_prices import find_extremes
from schemas.columns import from_python
from schemas.kinds import parse_kind

NUMBERS = st.integers(0, 4) | st.integers(0, (1 << 160) - 1)
CLOSE = st.integers(0, 9).map(lambda n: (1 << 200) + n)
"""No float tells these apart."""
U256 = parse_kind("u256")


def fractions(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(numbers, numbers.map(lambda n: n or 1)), min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.lists(fractions(NUMBERS) | fractions(CLOSE) | fractions(NUMBERS | CLOSE), min_size=1))
def test_extremes_are_the_first_of_the_greatest_and_least(
    groups: list[list[tuple[int, int]]],
) -> None:
    flat = [pair for group in groups for pair in group]
    over, under = (from_python(U256, [pair[i] for pair in flat]) for i in (0, 1))
    edges = np.cumsum([0, *(len(group) for group in groups)])
    starts, ends = edges[:-1], edges[1:]

    assert isinstance(over, np.ndarray)
    assert isinstance(under, np.ndarray)
    high, low = find_extremes(over, under, starts, ends)

    for group, start, at_high, at_low in zip(groups, starts, high, low, strict=True):
        prices = [Fraction(*pair) for pair in group]
        assert at_high - start == prices.index(max(prices))
        assert at_low - start == prices.index(min(prices))
