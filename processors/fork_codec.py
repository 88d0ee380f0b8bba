"""A fork state in, bytes for the changelog out, and back.

The bytes are MessagePack, led by a version. Canonical blocks are contiguous, so they are kept as
one height and their hashes one after the other: 32 bytes a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from processors.fork import ForkLimits, ForkState, Header, Word
from schemas.errors_process import ForkStateUnreadable
from schemas.segments import BlockRef, FinalityAdvanced

VERSION = 2
"""Of the layout below; a worker reads its own version only."""

HASH_BYTES = 32

_Ref = tuple[int, bytes]
_Word = tuple[int, bytes | None, _Ref | None, _Ref | None]
_Parked = tuple[Literal["safe", "finalized"], int, bytes, int]


@dataclass(frozen=True, slots=True)
class KeptFork:
    """A chain's fork state, and which of the heads it knows."""

    state: ForkState | None
    """The state; None where it was given up, to begin anew at the next finalized block."""
    offset: int
    """Up to where in ``raw.heads`` it knows every message of its chain; -1 for nowhere."""


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Layout 2 of a state, after its version and offset."""

    chain_id: int
    first: int
    hashes: bytes
    finalized: int
    safe: int | None
    side: list[tuple[int, bytes, bytes]]
    words: dict[str, _Word]
    parked: list[_Parked]


class _Kept(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Layout 2: a version, an offset, a state."""

    version: int
    offset: int
    state: _Stored | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Kept)


def encode_fork(kept: KeptFork) -> bytes:
    """A kept fork as bytes.

    Raises
    ------
    ValueError
        If the state is halted: that is its operator's business, and never stored.
    """
    state = kept.state
    if state is None:
        return _encoder.encode(_Kept(VERSION, kept.offset, None))
    if state.halted is not None:
        raise ValueError("a halted fork state is not stored")
    stored = _Stored(
        state.chain_id,
        state.chain[0].number,
        b"".join(ref.hash for ref in state.chain),
        state.finalized.number,
        None if state.safe is None else state.safe.number,
        [(one.number, one.hash, one.parent_hash) for one in state.side.values()],
        {name: _word_fields(word) for name, word in state.words.items()},
        [(one.kind, one.number, one.hash, one.observed_at_ms) for one in state.parked],
    )
    return _encoder.encode(_Kept(VERSION, kept.offset, stored))


def decode_fork(value: bytes, limits: ForkLimits) -> KeptFork:
    """The kept fork of `value`, under today's limits.

    Raises
    ------
    ForkStateUnreadable
        If the bytes are of another version, or not a fork state.
    """
    try:
        kept = _decoder.decode(value)
        if kept.version != VERSION:
            raise ValueError(f"its version is {kept.version}, ours is {VERSION}")
        state = None if kept.state is None else _state(kept.state, limits)
    except (msgspec.DecodeError, ValueError, LookupError) as error:
        raise ForkStateUnreadable(size_bytes=len(value), reason=str(error)) from error
    return KeptFork(state, kept.offset)


def _state(stored: _Stored, limits: ForkLimits) -> ForkState:
    if not stored.hashes or len(stored.hashes) % HASH_BYTES:
        raise ValueError(f"{len(stored.hashes)} bytes are no list of hashes")
    chain = tuple(
        BlockRef(stored.first + i, stored.hashes[HASH_BYTES * i : HASH_BYTES * (i + 1)])
        for i in range(len(stored.hashes) // HASH_BYTES)
    )
    safe = None if stored.safe is None else _at(chain, stored.safe)
    return ForkState(
        stored.chain_id,
        chain,
        _at(chain, stored.finalized),
        safe,
        {fields[1]: Header(*fields) for fields in stored.side},
        {name: _word(*fields) for name, fields in stored.words.items()},
        tuple(
            FinalityAdvanced(stored.chain_id, kind, number, block_hash, at_ms)
            for kind, number, block_hash, at_ms in stored.parked
        ),
        limits,
    )


def _at(chain: tuple[BlockRef, ...], number: int) -> BlockRef:
    index = number - chain[0].number
    if index < 0:
        raise ValueError(f"block {number} is below the chain, which begins at {chain[0].number}")
    return chain[index]


def _word_fields(word: Word) -> _Word:
    return word.observed_at_ms, word.vouched, _ref_fields(word.wanted), _ref_fields(word.missing)


def _word(at_ms: int, vouched: bytes | None, wanted: _Ref | None, missing: _Ref | None) -> Word:
    return Word(at_ms, vouched, wanted and BlockRef(*wanted), missing and BlockRef(*missing))


def _ref_fields(ref: BlockRef | None) -> _Ref | None:
    return None if ref is None else (ref.number, ref.hash)
