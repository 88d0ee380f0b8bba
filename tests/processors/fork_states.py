"""Strategies of fork states: small ones that hold something in every field."""

from __future__ import annotations

from hypothesis import strategies as st

from processors.fork import ForkState, Header, Word
from schemas.segments import BlockRef, FinalityAdvanced

hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
times = st.integers(0, 2**53)
refs = st.builds(BlockRef, numbers, hashes)
words = st.builds(Word, times, st.none() | hashes, st.none() | refs, st.none() | refs)


@st.composite
def fork_states(draw: st.DrawFn) -> ForkState:
    """Any state that `advance` may leave: a contiguous chain, its marks, and the rest at random."""
    first = draw(st.integers(0, 2**62))
    chain = tuple(
        BlockRef(first + i, one) for i, one in enumerate(draw(st.lists(hashes, min_size=1)))
    )
    finalized = draw(st.sampled_from(chain))
    above = [ref for ref in chain if ref.number >= finalized.number]
    chain_id = draw(st.integers(1, 2**53))
    headers = draw(st.lists(st.builds(Header, numbers, hashes, hashes), max_size=5))
    parked = st.builds(
        FinalityAdvanced,
        st.just(chain_id),
        st.sampled_from(["safe", "finalized"]),
        numbers,
        hashes,
        times,
    )
    return ForkState(
        chain_id,
        chain,
        finalized,
        draw(st.none() | st.sampled_from(above)),
        {header.hash: header for header in headers},
        draw(st.dictionaries(st.text(max_size=8), words, max_size=3)),
        tuple(draw(st.lists(parked, max_size=3))),
    )
