"""The values that the canon is made of: rows, reorgs, requests, bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.segments import BlockRef


@dataclass(frozen=True, slots=True)
class CanonSettings:
    """Bounds on waiting, in milliseconds of the caller's clock."""

    stale_fork_ms: int = 2_000
    """How long a replaced chain stays visible while the new fork is not durable."""
    missing_after_ms: int = 60_000
    """How long the next block may wait for one stream while others have it."""
    fork_gap_blocks_max: int = 2_000
    """Blocks below the fork view that are followed at once, by their parents."""


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """Pace and bounds of the publisher."""

    coalesce_seconds: float = 0.05
    """At most one canon row in this time."""
    poll_seconds: float | None = None
    """How often the ledger is read for other processes' loads; None relies on `notify`."""
    poll_overlap_seconds: float = 60.0
    """How far back a poll reads, for sinks whose inserts finish out of order."""
    check_seconds: float = 1.0
    """How often a later claim and overdue segments are looked for."""
    retry_seconds: float = 120.0
    """How long a canon row is tried again while ClickHouse does not answer."""
    missing_attempts_max: int | None = 5
    """How often a core segment is asked for again before the publisher halts; None where whoever
    is told of it (`on_missing`) counts: it may know that the segment is on its way."""
    canon: CanonSettings = field(default_factory=CanonSettings)
    """Bounds on waiting."""


@dataclass(frozen=True, slots=True)
class CanonRow:
    """One row of the table ``canon``: a whole snapshot of what counts."""

    generation: int
    """The publisher's claim."""
    seq: int
    """Counts within the generation."""
    floor: int
    """First visible block."""
    head: BlockRef
    """Last visible block."""
    safe: BlockRef | None
    """Newest visible safe block."""
    finalized: BlockRef | None
    """Newest visible finalized block."""
    sealed: tuple[int, ...]
    """Sealed partitions."""
    loads: tuple[int, ...]
    """Visible loads of the open partitions."""
    straddling: bool = True
    """False if every visible load lies between floor and head."""


@dataclass(frozen=True, slots=True)
class Reorg:
    """Visible blocks that a canon row replaced."""

    ancestor: BlockRef | None
    """Last block that both chains share; None where its hash is not known any more."""
    old_head: BlockRef
    """Visible head before."""
    new_head: BlockRef
    """Visible head after."""
    removed: tuple[BlockRef, ...]
    """Visible blocks that left, newest first."""
    added: tuple[BlockRef, ...]
    """Visible blocks that joined, oldest first, without gaps. Where history came before the fork's
    word of it, the canon tells them up to that segment's end, and the stored rows the rest."""


@dataclass(frozen=True, slots=True)
class Change:
    """What to write: the canon row, after the reorg that it applies, if any."""

    row: CanonRow
    """The new snapshot."""
    reorg: Reorg | None
    """What it replaces."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A core segment to ingest again."""

    stream: str
    """The stream."""
    from_block: int
    """First block."""
    to_block: int
    """Last block."""
    last_hash: bytes | None
    """Hash of the last block, where it is known."""


@dataclass(frozen=True, slots=True)
class Rewound:
    """A rewind: ledger rows of older generations above its block do not count."""

    generation: int
    """Its generation."""
    to_block: int
    """The last block that was kept."""
