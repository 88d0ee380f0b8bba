"""An observed head and its offset in, the next kept fork and what follows from it out.

The half of the reorg agent that is pure. Delivery is at least once, and a head that is heard
twice could look like a node that went back: so a kept fork knows the offset of its last message,
and what lies at or below that is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from processors.fork import Applied, Event, ForkLimits
from processors.fork_codec import KeptFork
from processors.reorg import advance, from_blocks
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved

NOTHING = KeptFork(None, -1, 0)
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


def hear(
    kept: KeptFork,
    offset: int,
    observed: HeadObserved | FinalityAdvanced,
    limits: ForkLimits,
    quiet_until: int,
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
    quiet_until
        The end of the topic when reading began. A state that begins below it begins in the past,
        and its followers know better until then.

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
        return Heard(KeptFork(state, offset, kept.quiet_until), tuple(events), begun=False)
    if isinstance(observed, FinalityAdvanced) and observed.kind == "finalized":
        anchor = BlockRef(observed.number, observed.hash)
        begun = from_blocks(observed.chain_id, anchor, limits=limits)
        return Heard(KeptFork(begun, offset, quiet_until), (), begun=True)
    return Heard(KeptFork(None, offset, kept.quiet_until), (), begun=False)
