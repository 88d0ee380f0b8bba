"""The values of the reorg state machine: its state, its bounds, the events it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.errors import Permanent
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate


@dataclass(frozen=True, slots=True)
class ForkLimits:
    """Bounds on what the state holds."""

    window_blocks_max: int = 100_000
    """Canonical blocks above the finalized one; more is a Halt."""
    gap_blocks_max: int = 50_000
    """Blocks between our head and a head that waits to connect; more is a Halt."""
    side_headers_max: int = 60_000
    """Headers beside the canonical chain; the lowest are dropped first."""
    tail_blocks: int = 128
    """Finalized blocks remembered, to tell a node that lags from a reorg below finality."""
    finality_parked_max: int = 64
    """Finality words waiting for their block; the lowest are dropped first."""
    providers_max: int = 64
    """Providers whose last word is kept; the one silent for longest is dropped first."""
    provider_silence_ms: int = 60_000
    """After this long without a word a provider no longer speaks for our head."""
    late_word_ms_max: int = 300_000
    """A word so much older than its provider's last one, at most, is late. One that is older still
    shows that the provider's clock was set back."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header beside the canonical chain."""

    number: int
    """Height."""
    hash: bytes
    """32 bytes."""
    parent_hash: bytes
    """32 bytes."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a provider said last."""

    observed_at_ms: int
    """When it spoke."""
    vouched: bytes | None
    """The last head it named that connected."""
    wanted: BlockRef | None
    """The head it named last, while that one does not connect."""
    missing: BlockRef | None
    """The first ancestor of `wanted` that is not known."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The canonical chain or its finality changed."""

    update: ForkUpdate
    """The change, as it goes to the topic ``forks``."""


@dataclass(frozen=True, slots=True)
class Finalized:
    """Every block up to this one can no longer change."""

    block: BlockRef
    """The newest finalized block."""


@dataclass(frozen=True, slots=True)
class NeedBlock:
    """A header to fetch: it connects a head to the chain."""

    hash: bytes
    """32 bytes."""
    number: int
    """Its height, as its child says."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The chain may not go on without its operator."""

    error: Permanent
    """What happened, why, and the command to run."""


Event = Applied | Finalized | NeedBlock | Halt


@dataclass(frozen=True, slots=True)
class ForkState:
    """The header tree of the unfinalised window. Build it with ``from_blocks``."""

    chain_id: int
    """The chain."""
    chain: tuple[BlockRef, ...]
    """The canonical chain, oldest first; it begins at or below the finalized block."""
    finalized: BlockRef
    """The newest finalized block of `chain`."""
    safe: BlockRef | None = None
    """The newest safe block of `chain`."""
    side: Mapping[bytes, Header] = field(default_factory=dict)
    """Known headers that are not canonical: other branches, and what waits to connect."""
    words: Mapping[str, Word] = field(default_factory=dict)
    """Each provider's last word."""
    parked: tuple[FinalityAdvanced, ...] = ()
    """Finality words whose block is not canonical yet."""
    limits: ForkLimits = ForkLimits()
    """The bounds."""
    halted: Halt | None = None
    """Why nothing is taken any more."""

    @property
    def head(self) -> BlockRef:
        """The newest canonical block."""
        return self.chain[-1]

    def at(self, number: int) -> BlockRef | None:
        """The canonical block of that height, where the window holds it."""
        index = number - self.chain[0].number
        return self.chain[index] if 0 <= index < len(self.chain) else None

    def holds(self, number: int, block_hash: bytes) -> bool:
        """Whether that block is canonical."""
        ours = self.at(number)
        return ours is not None and ours.hash == block_hash
