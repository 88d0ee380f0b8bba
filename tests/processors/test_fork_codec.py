"""Fork states in, bytes out, and the same states back; anything else is refused with a code."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.fork import ForkLimits, Halt
from processors.fork_codec import KeptFork, decode_fork, encode_fork
from processors.reorg import from_blocks
from schemas.errors_canon import HeadOutOfReach
from schemas.errors_process import ForkStateUnreadable
from schemas.segments import BlockRef
from tests.processors.fork_states import fork_states

LIMITS = ForkLimits()
STATE = from_blocks(1, BlockRef(7, b"\1" * 32), [BlockRef(8, b"\2" * 32)])
KEPT = KeptFork(STATE, 41)


@given(st.none() | fork_states(), st.integers(-1, 2**62))
@example(None, -1)
def test_a_kept_fork_comes_back_as_it_was(state: object, offset: int) -> None:
    kept = KeptFork(state, offset)  # type: ignore[arg-type]

    assert decode_fork(encode_fork(kept), LIMITS) == kept


@given(fork_states())
def test_orders_are_kept(state: object) -> None:
    """Which head waited longest is told by time, and by the order among equals."""
    kept = KeptFork(state, 0)  # type: ignore[arg-type]
    back = decode_fork(encode_fork(kept), LIMITS)

    assert kept.state is not None
    assert back.state is not None
    assert list(back.state.words) == list(kept.state.words)
    assert list(back.state.side) == list(kept.state.side)


def test_limits_are_those_of_today() -> None:
    tight = ForkLimits(window_blocks_max=3)
    back = decode_fork(encode_fork(KEPT), tight)

    assert back.state is not None
    assert back.state.limits == tight


def test_a_block_costs_little_more_than_its_hash() -> None:
    chain = [BlockRef(n, n.to_bytes(32)) for n in range(1, 1001)]
    state = from_blocks(1, BlockRef(0, bytes(32)), chain)

    assert len(encode_fork(KeptFork(state, 0))) < 1001 * 32 + 64


def test_a_halted_state_is_not_stored() -> None:
    error = HeadOutOfReach(head=9, blocks=1, ours=8, blocks_max=0)

    with pytest.raises(ValueError, match="halted"):
        encode_fork(replace(KEPT, state=replace(STATE, halted=Halt(error))))


@given(st.binary())
def test_anything_else_is_refused_with_a_code(value: bytes) -> None:
    with pytest.raises(ForkStateUnreadable, match="HR-6204"):
        decode_fork(value, LIMITS)


@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_another_state(data: st.DataObject) -> None:
    whole = bytearray(encode_fork(KEPT))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        decode_fork(bytes(whole), LIMITS)
    except ForkStateUnreadable:
        return


@given(st.integers(0, 200))
def test_truncated_bytes_are_refused(keep: int) -> None:
    whole = encode_fork(KEPT)

    with pytest.raises(ForkStateUnreadable):
        decode_fork(whole[: min(keep, len(whole) - 1)], LIMITS)


def test_another_version_is_refused_by_its_number() -> None:
    newer = msgspec.msgpack.encode([3, 0, None])

    with pytest.raises(ForkStateUnreadable, match="version is 3"):
        decode_fork(newer, LIMITS)
