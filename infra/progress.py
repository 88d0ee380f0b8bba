"""Totals of the stages in, rates and an estimate out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["starting", "backfill", "head", "draining", "done", "halted"]
ProviderState = Literal["ok", "limited", "slow", "failing", "quarantined"]

RATE_WINDOW_SECONDS = 10.0
HEAD_OLD_SECONDS = 20.0
"""A head that was named longer ago says nothing of now. Beside a WebSocket nodes are asked every
15 s at the longest."""


@dataclass(frozen=True, slots=True)
class StageProgress:
    """What one stage has done since the start."""

    name: str
    """`ingest`, `decode` or `load`."""
    blocks: int = 0
    """Blocks that left it."""
    logs: int = 0
    """Logs that left it."""
    queue_bytes: int = 0
    """Bytes waiting before it."""


@dataclass(frozen=True, slots=True)
class ProviderProgress:
    """How one endpoint does."""

    name: str
    """Its display name, which holds no secret."""
    state: ProviderState = "ok"
    """Its health."""
    calls: int = 0
    """Calls it has answered."""
    errors: int = 0
    """Calls that failed."""
    head: int | None = None
    """The head that it named last."""
    head_age_seconds: float | None = None
    """Time since it named it."""
    note: str = ""
    """Why it is not `ok`."""


@dataclass(frozen=True, slots=True)
class ReorgNotice:
    """A reorg that was applied."""

    block_number: int
    """First block that was replaced."""
    depth_blocks: int
    """How many were."""
    at: str
    """Time of day, for people."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment: totals only, so that a snapshot costs nothing."""

    at_seconds: float
    """Monotonic time of the snapshot."""
    chain: str
    """Name of the chain."""
    phase: Phase
    """What the run is doing."""
    from_block: int | None = None
    """First block of the backfill."""
    to_block: int | None = None
    """Last block of the backfill, or of the run."""
    done_blocks: int = 0
    """Blocks of the backfill that can be queried."""
    total_blocks: int = 0
    """Blocks of the backfill."""
    visible_block: int | None = None
    """Highest block that can be queried."""
    head_block: int | None = None
    """The nodes' head, when they were last heard."""
    head_age_seconds: float = 0.0
    """Time since a node last named a head that counts."""
    finalized_block: int | None = None
    """Highest final block."""
    stages: tuple[StageProgress, ...] = ()
    """In the order of the flow."""
    providers: tuple[ProviderProgress, ...] = ()
    """Every endpoint."""
    reorgs: tuple[ReorgNotice, ...] = ()
    """The last ones, newest last."""
    reorg_count: int = 0
    """All since the start."""
    loads: int = 0
    """Loads written to ClickHouse."""
    decode_failures: int = 0
    """Logs that no layout could decode."""
    dead_letters: int = 0
    """Messages that were refused."""
    memory_bytes: int = 0
    """Memory of the process and of ClickHouse."""
    synthetic: bool = False
    """Whether the chain is the devchain's, and not real."""
    warning: str = ""
    """What is wrong at present, for example that no node answers."""
    note: str = ""
    """A line for people, for example where to query."""

    @property
    def head_lag_blocks(self) -> int | None:
        """Nodes' head less the visible block; None while no head of now is known."""
        old = self.head_age_seconds > HEAD_OLD_SECONDS
        if old or self.head_block is None or self.visible_block is None:
            return None
        return max(0, self.head_block - self.visible_block)


@dataclass(frozen=True, slots=True)
class StageRate:
    """Speed of a stage over the last seconds."""

    blocks_per_second: float
    """Blocks."""
    logs_per_second: float
    """Logs."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Speeds, and when the backfill will be done."""

    stages: dict[str, StageRate]
    """By the stage's name."""
    eta_seconds: float | None
    """Time to the end of the backfill at the present speed."""


def rates_between(older: Progress, newer: Progress) -> Rates:
    """Speeds from two snapshots of one run."""
    seconds = newer.at_seconds - older.at_seconds
    if seconds <= 0:
        return Rates({}, None)
    before = {stage.name: stage for stage in older.stages}
    stages = {
        stage.name: StageRate(
            (stage.blocks - before[stage.name].blocks) / seconds,
            (stage.logs - before[stage.name].logs) / seconds,
        )
        for stage in newer.stages
        if stage.name in before
    }
    speed = (newer.done_blocks - older.done_blocks) / seconds
    left = newer.total_blocks - newer.done_blocks
    return Rates(stages, left / speed if speed > 0 and left > 0 else None)


@dataclass(slots=True)
class RateWindow:
    """The snapshots of the last seconds."""

    seconds: float = RATE_WINDOW_SECONDS
    """How far back speeds are measured."""
    snapshots: deque[Progress] = field(default_factory=deque)
    """Oldest first."""

    def add(self, progress: Progress) -> Rates:
        """Take a snapshot in and give the speeds over the window."""
        self.snapshots.append(progress)
        while (
            len(self.snapshots) > 2
            and progress.at_seconds - self.snapshots[1].at_seconds >= self.seconds
        ):
            self.snapshots.popleft()
        return rates_between(self.snapshots[0], progress)
