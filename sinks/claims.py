"""Words of the topic `claims` in, who is a chain's publisher and whether to wait for it out. No IO.

Any publisher that starts while another one shows signs of life stands by. It claims when that one
has released the chain, is known to be dead, or has been silent for a while. So a supervisor that
starts two of them again and again does not make them take turns. Where two claim at once the newer
claim wins, and the other one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schemas.segments import PublisherClaim

BEAT_SECONDS = 1.0
"""How often a publisher says that it lives."""
SILENT_SECONDS = 6.0
"""After so long without a word, another one may claim."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The newest publisher that claimed a chain."""

    generation: int
    """Of its claim."""
    publisher: str
    """Its random id."""
    host: str
    """Where it runs."""
    pid: int
    """Its process there."""
    released: bool
    """Whether it has ended."""

    def __str__(self) -> str:
        return f"generation {self.generation}, process {self.pid} on {self.host}"


class Claims:
    """What a chain's publishers have said so far.

    Parameters
    ----------
    chain_id
        The chain; words about others are left out.
    started_at
        Seconds of a steady clock: a word from before is as old as this at least.
    """

    def __init__(self, chain_id: int, started_at: float) -> None:
        self.owner: Owner | None = None
        self._chain_id = chain_id
        self._heard_at = started_at

    def hear(self, offset: int, word: PublisherClaim, now: float) -> None:
        """Take the word at an offset of the topic."""
        if word.chain_id != self._chain_id:
            return
        generation = offset + 1 if word.kind == "claim" else word.generation
        owner = self.owner
        if owner is not None and generation < owner.generation:
            return
        released = word.kind == "release"
        self.owner = Owner(generation, word.publisher, word.host, word.pid, released)
        self._heard_at = now

    def may_claim(self, now: float, is_dead: Callable[[Owner], bool]) -> bool:
        """Whether nobody else is the publisher any more.

        Parameters
        ----------
        now
            Seconds of the same steady clock.
        is_dead
            Whether an owner is known to be gone, as far as can be seen from here.
        """
        owner = self.owner
        if owner is None or owner.released or now - self._heard_at >= SILENT_SECONDS:
            return True
        return is_dead(owner)

    def superseded_by(self, generation: int) -> Owner | None:
        """The owner, if its claim is newer than the one of `generation`."""
        owner = self.owner
        return owner if owner is not None and owner.generation > generation else None
