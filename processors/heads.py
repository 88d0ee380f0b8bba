"""An observed head and its offset in, the next kept fork and what follows from it out.

The half of the reorg agent that is pure. Delivery is at least once, and a head that is heard
twice could look like a node that went back: so a kept fork knows the offset up to which it has
heard its chain, and what lies at or below that is skipped. That holds only if heads are heard in
order and none is left out: what lies between two that come is read before the later is heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from processors.fork import Applied, Event, ForkLimits
from processors.fork_codec import KeptFork
from processors.reorg import advance, from_blocks
from schemas.errors_process import HeadsLost
from schemas.segments import BlockRef, Envelope, FinalityAdvanced, ForkUpdate, HeadObserved

NOTHING = KeptFork(None, -1)
"""What is kept of a chain that was never heard of."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one observation comes to."""

    kept: KeptFork
    """What is kept from now on."""
    events: tuple[Event, ...]
    """What `advance` answered."""
    begun: bool
    """Whether the state is a new one: followers know nothing of it yet."""

    @property
    def updates(self) -> tuple[ForkUpdate, ...]:
        """The changes of the canonical chain and of its finality."""
        return tuple(event.update for event in self.events if isinstance(event, Applied))


@dataclass(slots=True)
class Chain:
    """What the reorg agent has of one chain beyond its stored bytes."""

    kept: KeptFork = NOTHING
    """The newest state."""
    untold: list[Envelope] = field(default_factory=list)
    """Messages of updates that were not told yet."""
    since_snapshot: int = 0
    """Updates told since the last snapshot."""
    snapshot_due: bool = False
    """Whether followers need the whole."""
    observed_at_ms: int = 0
    """When the last of its heads was observed."""


def hear(
    kept: KeptFork,
    offset: int,
    observed: HeadObserved | FinalityAdvanced,
    limits: ForkLimits,
) -> Heard:
    """Take one message of ``raw.heads``.

    Parameters
    ----------
    kept
        What is kept of the message's chain.
    offset
        The message's offset.
    observed
        The message.
    limits
        Bounds of a state that begins here.

    Returns
    -------
    Heard
        A chain without a state begins with the first finalized block that it is told of;
        what comes before that one is of no use.
    """
    if offset <= kept.offset:
        return Heard(kept, (), begun=False)
    if kept.state is not None:
        state, events = advance(kept.state, observed)
        return Heard(KeptFork(state, offset), tuple(events), begun=False)
    if isinstance(observed, FinalityAdvanced) and observed.kind == "finalized":
        anchor = BlockRef(observed.number, observed.hash)
        begun = from_blocks(observed.chain_id, anchor, limits=limits)
        return Heard(KeptFork(begun, offset), (), begun=True)
    return Heard(KeptFork(None, offset), (), begun=False)


def first_unheard(kept: Iterable[KeptFork], committed: int | None, low: int) -> int:
    """Where to begin to read ``raw.heads``, so that no chain misses a message.

    What the group has committed was part of stored states, but of newer ones, it may be: a worker
    that had lost the partition without knowing can have overwritten them with its own. So reading
    begins above the oldest state. And no later than at what was committed: a chain without a
    state has no message below that.

    Parameters
    ----------
    kept
        The stored states of all chains.
    committed
        The offset from which the group reads; None where nothing was committed.
    low
        The first offset that is kept.

    Raises
    ------
    HeadsLost
        If a state lacks messages that are no longer kept.
    """
    offsets = [one.offset for one in kept]
    oldest = min((one + 1 for one in offsets if one >= 0), default=low)
    if oldest < low:
        raise HeadsLost(first=oldest, last=low - 1)
    if committed is None:
        return low
    return max(low, min([committed, *(one + 1 for one in offsets)]))
