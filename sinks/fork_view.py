"""ForkUpdates in, the canonical hash of each height out: a follower of the topic ``forks``."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.segments import BlockRef, ForkUpdate


class ForkView:
    """The newest fork state: hashes from the base, which is final, up to the head."""

    def __init__(self) -> None:
        self.hashes: dict[int, bytes] = {}
        """Canonical hash by height, without gaps."""
        self.base: int | None = None
        """The lowest height known; None before the first whole snapshot."""
        self.head: BlockRef | None = None
        """The head."""
        self.safe: BlockRef | None = None
        """The newest safe block."""
        self.finalized: BlockRef | None = None
        """The newest finalized block."""

    def hash_at(self, number: int) -> bytes | None:
        """The canonical hash of a height, where it is known."""
        return self.hashes.get(number)

    def apply(self, update: ForkUpdate) -> bool:
        """Follow one update.

        An update that adds its own finalized block is a whole snapshot. Where the view has that
        very block, what it knows below it stays: each of its blocks is the parent of the next,
        and a hash names all ancestors, so these are ancestors of the snapshot's, too.

        Any other update has to fit: what it removes ends at our head, what it adds begins right
        after what is left. One that does not fit is a duplicate, or follows one that was missed:
        nothing changes.

        Returns
        -------
        bool
            Whether it was applied.
        """
        if update.added and update.added[0] == update.finalized:
            old, first = self.hashes, update.added[0]
            self.hashes = {ref.number: ref.hash for ref in update.added}
            if self.base is None or old.get(first.number) != first.hash:
                self.base = first.number
            self.hashes.update((at, old[at]) for at in range(self.base, first.number))
        elif not self._fits(update):
            return False
        else:
            for ref in update.removed:
                del self.hashes[ref.number]
            self.hashes.update((ref.number, ref.hash) for ref in update.added)
        self.head, self.safe, self.finalized = update.head, update.safe, update.finalized
        return True

    def extend_below(self, refs: Sequence[BlockRef]) -> None:
        """Learn the final blocks right below the base, lowest first."""
        if refs and refs[-1].number + 1 == self.base:
            self.hashes.update((ref.number, ref.hash) for ref in refs)
            self.base = refs[0].number

    def prune(self, number: int) -> None:
        """Forget the heights below `number`; it becomes the base."""
        if self.base is None:
            return
        while self.base < number and self.base + 1 in self.hashes:
            del self.hashes[self.base]
            self.base += 1

    def _fits(self, update: ForkUpdate) -> bool:
        if self.head is None:
            return False
        top = self.head.number
        for ref in update.removed:
            if ref.number != top or self.hashes.get(top) != ref.hash:
                return False
            top -= 1
        for ref in update.added:
            if ref.number != top + 1:
                return False
            top += 1
        last = update.added[-1].hash if update.added else self.hashes.get(top)
        return (top, last) == (update.head.number, update.head.hash)
