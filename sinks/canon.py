"""What is durable in, canon rows out: what of it is shown. No IO, no clock.

1. Forwards: the longest prefix that is durable in every core stream, as soon as it grows.
2. A reorg of shown blocks: the old chain stays until some state of the new fork above the common
   ancestor is durable as a whole; after ``stale_fork_ms`` without one, the longest durable prefix
   of the new fork is shown. So a branch that comes block by block is one reorg, up to its first.
   A→B→A before B is durable changes nothing.
3. Otherwise the visible height never goes back.
4. A snapshot that begins above shown blocks which are not final does not say if they left. They
   stay, and nothing is built on them, until stored rows name the ancestors (`doubt`).

What a canon row shows sticks over restarts: its loads are taken first, whatever came since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from schemas.chains import ChainFacts
from schemas.errors_canon import CanonDamaged
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon_row import CanonRow, CanonSettings, Change, Reorg, Rewound
from sinks.durable import Durable, loads_of
from sinks.ledger import LedgerRow
from sinks.replaced import Replaced
from sinks.tiling import last_block


class Canon(Durable):
    """The publisher's state machine: the durable chain, and what of it is shown.

    Parameters
    ----------
    facts
        The grid of segments and partitions.
    streams
        The core streams, with the content version that counts for each; None takes any.
    floor
        First block to show, where nothing is shown yet.
    generation
        The claim under which rows are written.
    shown
        The newest canon row, at restart.
    rewinds
        All rewinds.
    settings
        Bounds.
    seq
        The last one that was written, or tried, under the claim.
    """

    def __init__(
        self,
        facts: ChainFacts,
        streams: Mapping[str, str | None],
        floor: int,
        generation: int,
        *,
        shown: CanonRow | None = None,
        rewinds: Iterable[Rewound] = (),
        settings: CanonSettings | None = None,
        seq: int = -1,
    ) -> None:
        self.generation, self.shown = generation, shown
        self.settings = settings or CanonSettings()
        super().__init__(
            facts,
            streams,
            shown.floor if shown else floor,
            sealed=shown.sealed if shown else (),
            final=shown.finalized if shown else None,
            rewinds=rewinds,
            missing_after_ms=self.settings.missing_after_ms,
            fork_gap_blocks_max=self.settings.fork_gap_blocks_max,
        )
        self._want_floor = min(floor, self.floor)
        self._replaced = Replaced()
        self.seq = seq

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Take up the newest canon row with the ledger rows of its open partitions.

        Raises
        ------
        CanonDamaged
            If the ledger lacks a load that the canon row shows.
        """
        shown = self.shown
        assert shown is not None
        sticky = frozenset(shown.loads)
        for stream, tiling in self.tilings.items():
            ours = [row for row in rows if row.stream == stream and row.load_id in sticky]
            self._skip_sealed(tiling)
            for load in loads_of(ours):
                tiling.take(load)
            while tiling.top < shown.head.number:
                pieces = [p for p in tiling.candidates(tiling.top + 1) if p.load_id in sticky]
                if not pieces or not tiling.push(pieces[0]):
                    detail = f"block {tiling.top + 1} of {stream} has no load"
                    raise CanonDamaged(database=self.facts.name, detail=detail, to_block=tiling.top)
                self._skip_sealed(tiling)
        if self.facts.partition(shown.head.number) in self.sealed:
            self._sealed_end = shown.head
        self.add([row for row in rows if row.load_id not in sticky])

    def apply_fork(self, update: ForkUpdate, now_ms: int) -> bool:
        """Follow a fork state; False where it does not fit what was followed so far."""
        old, was_final = self.fork.hashes, self.final_number
        gone = {ref.number: ref.hash for ref in update.removed}
        if not self.fork.apply(update):
            return False
        self._dirty = True
        if self.fork.hashes is not old:
            gone = old  # A whole snapshot: what it does not hold has left.
            self._compare(update.added[0].number, was_final, gone, now_ms)
        self._leave(update, gone, now_ms)
        self._replaced.aim(update.head.number)
        if update.finalized is not None and update.finalized.number > was_final:
            self._final = update.finalized
        self._extend()
        # What the fork calls final, not what we do: an update may still remove all above it.
        needed = [self.final_number, self.head_number]
        if update.finalized is not None:
            needed.append(update.finalized.number)
        if self._replaced.kept is not None:
            needed.append(self._replaced.kept)
        self.fork.prune(min(needed))
        return True

    def doubt(self) -> tuple[BlockRef, int] | None:
        """A canonical block, and how far down its ancestors are to be named to `settle`.

        None but where shown blocks left the chain, or may have left it, while nobody told what
        joined, and the first of these heights is durable again. The fork view tells it only
        where the tile ends in a block of its own: history may be ahead of a late word.
        """
        kept = self._replaced.kept
        if kept is None or self._tiled_hash(kept + 1) is not None:
            return None
        for tiling in self.tilings.values():
            tile = tiling.tile_holding(kept + 1)
            if tile is not None:
                return last_block(tile), max(kept, 0)
        return None

    def settle(self, block: BlockRef, below: Sequence[BlockRef]) -> None:
        """Learn the ancestors of a block that was in `doubt`: which of what is shown left."""
        self._named = {ref.number: ref.hash for ref in (*below, block)}
        self._join()
        self._dirty = True

    def close_fork_gap(self, below: Sequence[BlockRef]) -> None:
        """Take blocks below the fork view's first one for its ancestors, which are final."""
        super().close_fork_gap(below)
        self._join()

    def step(self, now_ms: int) -> Change | None:
        """The canon row to write now, if what counts has changed."""
        head = self._head() if self._dirty else None
        old, replaced = self.shown, self._replaced
        if head is None or not replaced.may_show(head.number, now_ms, self.settings.stale_fork_ms):
            return None
        if old is not None and replaced.kept is None and head.number < old.head.number:
            return None
        if replaced.kept is not None and head.number > replaced.kept and self.doubt() is not None:
            return None
        self._dirty = False
        row = self._row(head)
        if old is not None and replace(row, seq=old.seq) == old:
            return None
        reorg = self._reorg(row)
        replaced.clear()
        self._named.clear()
        self.seq += 1
        self.shown = row = replace(row, seq=self.seq)
        if row.finalized is not None and row.finalized.number > self.final_number:
            self._final = row.finalized
        return Change(row, reorg)

    def claim(self) -> CanonRow | None:
        """The newest row again under our generation, which fences off older publishers."""
        if self.shown is None:
            return None
        self.seq += 1
        self.shown = replace(self.shown, generation=self.generation, seq=self.seq)
        return self.shown

    def seal_candidates(self) -> list[int]:
        """Open partitions that are visible as a whole, and final."""
        shown = self.shown
        if shown is None or self._replaced.kept is not None:
            return []
        top = min(shown.head.number, shown.finalized.number if shown.finalized else -1)
        size = self.facts.partition_blocks
        found = []
        for partition in next(iter(self.tilings.values())).open_partitions():
            start = partition * size
            if shown.floor <= start and start + size - 1 <= top:
                found.append(partition)
        return found

    def freeze(self, partition: int, *, frozen: bool = True) -> None:
        """Keep the tiles of a partition as they are while it is sealed."""
        for tiling in self.tilings.values():
            (tiling.frozen.add if frozen else tiling.frozen.discard)(partition)

    def seal(self, partition: int) -> None:
        """A partition's `T_sealed` holds what its tiles hold: drop these from the loads."""
        number = (partition + 1) * self.facts.partition_blocks - 1
        # Not the fork view's word, which may still speak of a branch that has left.
        block_hash = self._tile_hash(number)
        for tiling in self.tilings.values():
            tiling.seal(partition)
        self._chosen.pop(partition, None)
        self.sealed.add(partition)
        known = self._sealed_end is not None and self._sealed_end.number >= number
        if block_hash is not None and not known:
            self._sealed_end = BlockRef(number, block_hash)
        self._dirty = True

    def fold(self, rows: Sequence[LedgerRow]) -> bool:
        """Let a load that copies tiles take their place; False where they changed meanwhile."""
        (load,) = loads_of(rows)
        done = self.tilings[rows[0].stream].fold(load)
        self._dirty |= done
        return done

    def _compare(self, first: int, was_final: int, gone: Mapping[int, bytes], now_ms: int) -> None:
        """Cut the tiles that a whole snapshot does not link to, or that lie above its head.

        What lies between what was final and the block that the snapshot begins with, `first`, is
        told by nobody, but where the view of before had that very block: then it says what lies
        below, and the tiles follow it. Where a tile ends in that block, the tiles below are its
        ancestors.
        """
        head = self.fork.head
        assert head is not None
        sure = max(was_final, *(tiling.history_top() for tiling in self.tilings.values()))
        linked = gone.get(first) == self.fork.hashes[first]
        if first > sure + 1 and not linked and self._tile_hash(first) != self.fork.hashes[first]:
            self._forsake(sure + 1, gone, now_ms, doubtful=True)
        else:
            self._forsake(max(sure, head.number) + 1, gone, now_ms)

    def _leave(self, update: ForkUpdate, gone: Mapping[int, bytes], now_ms: int) -> None:
        """Cut the tiles that the fork contradicts; remember what was shown of them."""
        tops = [tiling.top for tiling in self.tilings.values()]
        # A word about what is final here is a late one.
        sure = max(self.final_number, *(tiling.history_top() for tiling in self.tilings.values()))
        wrong = [ref.number for ref in update.removed if ref.number > sure]
        for ref in update.added:
            if ref.number > max(tops):
                break
            if ref.number > sure and self._tile_hash(ref.number) not in (None, ref.hash):
                wrong.append(ref.number)
                break
        if wrong:
            self._forsake(min(wrong), gone, now_ms)
        self._join()

    def _forsake(
        self, lowest: int, gone: Mapping[int, bytes], now_ms: int, *, doubtful: bool = False
    ) -> None:
        """Cut the tiles from `lowest` on; remember what was shown of them."""
        line = self._replaced.kept
        if self.shown is not None and line is None:
            line = self.shown.head.number
        if line is not None and lowest <= line:
            hashes = {
                number: block_hash
                for number in range(lowest, line + 1)
                if (block_hash := gone.get(number) or self._tile_hash(number)) is not None
            }
            self._replaced.leave(lowest - 1, line, hashes, now_ms, doubtful=doubtful)
        for tiling in self.tilings.values():
            tiling.cut(lowest - 1)

    def _join(self) -> None:
        """Give back the shown blocks that are canonical."""
        if self.shown is not None and self._replaced.kept is not None:
            assert self.fork.head is not None
            self._replaced.join(self._tiled_hash, self.shown.head.number, self.fork.head.number)

    def _row(self, head: BlockRef) -> CanonRow:
        final = self._final_at(head)
        safe = self.fork.safe
        if safe is None or (final is not None and safe.number < final.number):
            safe = final
        elif safe.number > head.number:
            safe = head
        return CanonRow(
            self.generation,
            self.seq,
            self.floor,
            head,
            safe,
            final,
            tuple(sorted(self.sealed)),
            self._loads_up_to(head.number),
            any(tiling.straddles(self.floor, head.number) for tiling in self.tilings.values()),
        )

    def _final_at(self, head: BlockRef) -> BlockRef | None:
        """The newest final block at or below `head`."""
        if self._final is not None and self._final.number > head.number:
            return head
        tiles = [tiling.top_tile() for tiling in self.tilings.values()]
        history = any(t is not None and t.history and t.to_block == head.number for t in tiles)
        if history or (self._final is None and head == self._sealed_end):
            return head
        return self._final

    def _loads_up_to(self, number: int) -> tuple[int, ...]:
        """Loads of the tiles that begin at or below `number`."""
        loads: list[int] = []
        for tiling in self.tilings.values():
            above = tiling.above(number) if tiling.top > number else {}
            hidden = {load for load, count in above.items() if count == tiling.uses[load]}
            loads += tiling.uses.keys() - hidden if hidden else tiling.uses
        return tuple(sorted(loads))

    def _reorg(self, row: CanonRow) -> Reorg | None:
        """What of the shown chain a row replaces."""
        old, kept = self.shown, self._replaced.kept
        if old is None or kept is None:
            return None
        added: list[BlockRef] = []
        for number in range(kept + 1, row.head.number + 1):
            joined = self._tiled_hash(number)
            if joined is None:
                break
            added.append(BlockRef(number, joined))
        shared = self._tile_hash(kept) or self._tiled_hash(kept)
        ancestor = BlockRef(kept, shared) if shared is not None else None
        return Reorg(ancestor, old.head, row.head, self._replaced.removed(), tuple(added))
