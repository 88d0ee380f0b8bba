"""Removed and added blocks in, which shown blocks a new fork replaces out; no IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schemas.segments import BlockRef


class Replaced:
    """Shown blocks that left the chain while they are still shown.

    A→B→A gives blocks back, so that a branch that was never shown leaves no trace.
    """

    def __init__(self) -> None:
        self.kept: int | None = None
        """The last shown block that is still canonical; None while all of them are."""
        self.since_ms = 0
        """When the first of them left."""
        self.lost: dict[int, bytes] = {}
        """Hashes of the shown blocks that left, by height, where known."""
        self.doubtful = False
        """Whether it is not known yet which of them left: those up to some height may be canonical
        still."""
        self._goals: list[int] = []

    def leave(
        self,
        kept: int,
        line: int,
        hashes: Mapping[int, bytes],
        now_ms: int,
        *,
        doubtful: bool = False,
    ) -> None:
        """Shown blocks above `kept` left the chain, or may have left it where `doubtful`.

        `line` was the last canonical one before.
        """
        if self.kept is None:
            self.since_ms = now_ms
        for number in range(kept + 1, line + 1):
            if number in hashes:
                self.lost[number] = hashes[number]
        self.kept, self.doubtful = kept, doubtful
        self._goals.clear()

    def join(self, hash_at: Callable[[int], bytes | None], shown_head: int, fork_head: int) -> None:
        """Give back the blocks that are canonical again; what lies above the fork's head is not."""
        while self.kept is not None and self.kept < shown_head:
            number = self.kept + 1
            known = hash_at(number)
            if number not in self.lost or known != self.lost[number]:
                self.doubtful = self.doubtful and known is None and number <= fork_head
                return
            del self.lost[number]
            self.kept = number
        self.clear()

    def aim(self, head: int) -> None:
        """Note a state of the new fork: it may be shown when it is durable as a whole.

        The bare ancestor is no such state: where a node tells its new branch block by block, the
        row of the reorg is to name the branch. It is shown after `stale_fork_ms`.
        """
        if self.kept is not None and head > self.kept:
            self._goals = [goal for goal in self._goals if goal < head]
            self._goals.append(head)

    def may_show(self, head: int, now_ms: int, stale_fork_ms: int) -> bool:
        """Whether the chain up to `head` may replace what is shown.

        Never where `head` is below a shown block that is still canonical: its load went with a
        block of the branch that left, and comes again. Nor while it is not known which left.
        """
        if self.kept is None:
            return True
        if head < self.kept or self.doubtful:
            return False
        reached = any(goal <= head for goal in self._goals)
        return reached or now_ms - self.since_ms >= stale_fork_ms

    def removed(self) -> tuple[BlockRef, ...]:
        """The shown blocks that left, newest first."""
        return tuple(BlockRef(number, self.lost[number]) for number in sorted(self.lost)[::-1])

    def clear(self) -> None:
        """What is canonical is shown."""
        self.kept, self.doubtful = None, False
        self.lost.clear()
        self._goals.clear()
