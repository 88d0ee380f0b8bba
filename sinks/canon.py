"""Ledger rows and fork states in, canon rows out: which loads count. No IO, no clock.

A block is visible when every core stream has a tile for it (``sinks.tiling``) that lies on the
chain. What lies on the chain:

- where the fork view knows the hash of a piece's last block, the piece must end in that hash, and
  the tile below must end in the fork's hash too (history's last block is the parent of the first
  head block);
- below the fork view only history pieces count, above something final, and every core stream must
  have a piece that ends in the same block: the first such block is kept.

What is shown
-------------
1. Forwards: the longest prefix that is durable in every core stream, as soon as it grows.
2. A reorg of shown blocks: the old chain stays until some state of the new fork is durable as a
   whole; after ``stale_fork_ms`` without one, the longest durable prefix of the new fork is shown.
   A→B→A before B is durable changes nothing.
3. Otherwise the visible height never goes back.

Acceptance sticks: a load that a canon row shows keeps its segments until something replaces all of
it (a fold, history over head blocks, a seal). Loads of an older generation than a rewind's that
reach above its block do not exist for us; neither do other content versions, unless shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from schemas.chains import ChainFacts
from schemas.errors_canon import CanonDamaged
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon_row import CanonRow, CanonSettings, Change, Missing, Reorg, Rewound
from sinks.fork_view import ForkView
from sinks.ledger import LedgerRow
from sinks.replaced import Replaced
from sinks.tiling import Load, Piece, Tiling, last_block


class Canon:
    """The publisher's state machine.

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
    ) -> None:
        self.facts, self.streams, self.generation = facts, dict(streams), generation
        self.settings = settings or CanonSettings()
        self.shown = shown
        self.floor = shown.floor if shown else floor
        self.fork = ForkView()
        self.sealed: set[int] = set(shown.sealed) if shown else set()
        self.tilings = {name: Tiling(facts, self.floor) for name in streams}
        self._want_floor = min(floor, self.floor)
        self._rewinds = tuple(rewinds)
        self._final: BlockRef | None = shown.finalized if shown else None
        self._sealed_end: BlockRef | None = None
        self._chosen: dict[int, dict[int, bytes]] = {}
        self._missing: dict[Missing, None] = {}
        self._replaced = Replaced()
        self._blocked = (-1, 0)
        self._seq = -1
        self._dirty = False

    @property
    def head_number(self) -> int:
        """The last block that every core stream has a tile for; below the floor without any."""
        return min(tiling.top for tiling in self.tilings.values())

    @property
    def final_number(self) -> int:
        """The last block known to be final, -1 where none is."""
        return self._final.number if self._final else -1

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
            for load in _loads(ours):
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

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take complete loads in order: all ledger rows of each load at once."""
        for stream in self.streams:
            ours = [row for row in rows if row.stream == stream]
            for load in _loads([row for row in ours if self._counts(row)]):
                self._take(stream, load)
        self._extend()

    def apply_fork(self, update: ForkUpdate, now_ms: int) -> bool:
        """Follow a fork state; False where it does not fit what was followed so far."""
        old, was_final = self.fork.hashes, self.final_number
        gone = {ref.number: ref.hash for ref in update.removed}
        if not self.fork.apply(update):
            return False
        self._dirty = True
        if self.fork.hashes is not old:
            gone = old  # A whole snapshot: what it does not hold has left.
            self._detach(was_final)
        self._leave(update, gone, now_ms)
        self._replaced.aim(update.head.number)
        if update.finalized is not None and update.finalized.number > was_final:
            self._final = update.finalized
        self._extend()
        needed = [self.final_number, self.head_number]
        if self._replaced.kept is not None:
            needed.append(self._replaced.kept)
        self.fork.prune(min(needed))
        return True

    def step(self, now_ms: int) -> Change | None:
        """The canon row to write now, if what counts has changed."""
        head = self._head() if self._dirty else None
        old, replaced = self.shown, self._replaced
        if head is None or not replaced.may_show(head.number, now_ms, self.settings.stale_fork_ms):
            return None
        if old is not None and replaced.kept is None and head.number < old.head.number:
            return None
        self._dirty = False
        row = self._row(head)
        if old is not None and replace(row, seq=old.seq) == old:
            return None
        reorg = self._reorg(row)
        replaced.clear()
        self._seq += 1
        self.shown = row = replace(row, seq=self._seq)
        if row.finalized is not None and row.finalized.number > self.final_number:
            self._final = row.finalized
        return Change(row, reorg)

    def claim(self) -> CanonRow | None:
        """The newest row again under our generation, which fences off older publishers."""
        if self.shown is None:
            return None
        self._seq += 1
        self.shown = replace(self.shown, generation=self.generation, seq=self._seq)
        return self.shown

    def lower_floor(self, floor: int) -> None:
        """Show blocks from `floor` on, once they reach up to the floor of now."""
        self._want_floor = min(floor, self._want_floor)
        self._extend()

    def take_missing(self, now_ms: int) -> list[Missing]:
        """Segments to ingest again: refused by a conflict, or long overdue."""
        missing, self._missing = list(self._missing), {}
        number = self.head_number + 1
        if number != self._blocked[0]:
            self._blocked = (number, now_ms)
        elif now_ms - self._blocked[1] >= self.settings.missing_after_ms:
            self._blocked = (number, now_ms)
            missing += self._overdue(number)
        return missing

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
        end = self._block((partition + 1) * self.facts.partition_blocks - 1)
        for tiling in self.tilings.values():
            tiling.seal(partition)
        self._chosen.pop(partition, None)
        self.sealed.add(partition)
        if end is not None and (self._sealed_end is None or end.number > self._sealed_end.number):
            self._sealed_end = end
        self._dirty = True

    def fold(self, rows: Sequence[LedgerRow]) -> bool:
        """Let a load that copies tiles take their place; False where they changed meanwhile."""
        (load,) = _loads(rows)
        done = self.tilings[rows[0].stream].fold(load)
        self._dirty |= done
        return done

    def _counts(self, row: LedgerRow) -> bool:
        """Whether a ledger row may count at all."""
        version = self.streams[row.stream]
        rewound = any(
            row.generation < rewind.generation and row.to_block > rewind.to_block
            for rewind in self._rewinds
        )
        return (
            not rewound
            and (version is None or row.content_version == version)
            and self.facts.partition(row.from_block) not in self.sealed
            and self.facts.partition(row.from_block) == self.facts.partition(row.to_block)
        )

    def _take(self, stream: str, load: Load) -> None:
        """Keep a load, or let it replace smaller tiles, or refuse it and name what it leaves."""
        tiling = self.tilings[stream]
        top = min(tiling.top, self.final_number)
        over = all(piece.to_block <= tiling.top for piece in load.pieces)
        smaller = not load.pieces[0].history
        if all(tiling.low <= p.from_block and p.to_block <= top for p in load.pieces) and smaller:
            return
        refused = tiling.take(load)
        if refused is not None:
            self._ask(stream, refused)
        elif over and load.pieces[0].history and tiling.low <= load.pieces[0].to_block:
            if tiling.swap(load):
                self._dirty = True
            elif load.pieces[0].from_block >= tiling.low and load.pieces[-1].to_block <= top:
                # Above finality it stays: a reorg may take away the tiles that it contradicts.
                tiling.reject(load)

    def _extend(self) -> None:
        """Raise the tops, and lower the floor, as far as candidates reach."""
        moved = True
        while moved:
            moved = False
            for stream, tiling in self.tilings.items():
                while self._raise_top(stream, tiling):
                    moved = True
        if self._want_floor < self.floor:
            self._lower()

    def _raise_top(self, stream: str, tiling: Tiling) -> bool:
        self._skip_sealed(tiling)
        for piece in tiling.candidates(tiling.top + 1):
            load = tiling.load_of(piece)
            if self._on_chain(tiling, piece):
                self._dirty = True
                if not tiling.push(piece):
                    self._ask(stream, [p for p in load.pieces if p.to_block > tiling.top])
                return True
            if piece.load_id in tiling.uses and self._contradicted(piece):
                # Part of this load is shown or will be, and the rest is of another branch.
                tiling.cut(load.pieces[0].from_block - 1)
                tiling.reject(load)
                self._ask(stream, [p for p in load.pieces if not self._contradicted(p)])
                return True
        return False

    def _on_chain(self, tiling: Tiling, piece: Piece) -> bool:
        """Whether a piece continues what is tiled; see the module's docstring."""
        known = self.fork.hash_at(piece.to_block)
        below = tiling.top_tile()
        if known is not None:
            if below is None or tiling.top >= piece.from_block:
                return known == piece.last_hash
            linked = self.fork.hash_at(tiling.top) in (None, below.last_hash)
            return linked and known == piece.last_hash
        if not piece.history:
            return False
        if below is not None and not below.history and below.to_block > self.final_number:
            return False
        return self._agreed(piece)

    def _contradicted(self, piece: Piece) -> bool:
        return self.fork.hash_at(piece.to_block) not in (None, piece.last_hash)

    def _ask(self, stream: str, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            name = Missing(stream, piece.from_block, piece.to_block, piece.last_hash)
            self._missing[name] = None

    def _agreed(self, piece: Piece) -> bool:
        """Whether every core stream has a piece that ends in the same block."""
        chosen = self._chosen.setdefault(self.facts.partition(piece.from_block), {})
        first = chosen.get(piece.to_block)
        if first is not None:
            return first == piece.last_hash
        for tiling in self.tilings.values():
            if not tiling.ends_at(piece.to_block, piece.last_hash):
                return False
        chosen[piece.to_block] = piece.last_hash
        return True

    def _skip_sealed(self, tiling: Tiling) -> None:
        while (partition := self.facts.partition(tiling.top + 1)) in self.sealed:
            tiling.top = (partition + 1) * self.facts.partition_blocks - 1

    def _lower(self) -> None:
        """Take history pieces below the lowest tiles while every stream has the same ones."""
        if self.head_number < self.floor:
            return
        while True:
            lows = {tiling.low for tiling in self.tilings.values()}
            if len(lows) > 1 or (low := lows.pop()) <= self._want_floor:
                break
            step = [
                (tiling, piece)
                for tiling in self.tilings.values()
                for piece in tiling.candidates_below(low - 1)
                if piece.history and self._agreed(piece)
            ]
            if len(step) < len(self.tilings) or not all(t.push_below(p) for t, p in step):
                break
            self.floor = max(step[0][1].from_block, self._want_floor)
            self._dirty = True

    def _leave(self, update: ForkUpdate, gone: Mapping[int, bytes], now_ms: int) -> None:
        """Cut the tiles that the fork contradicts; remember what was shown of them."""
        tops = [tiling.top for tiling in self.tilings.values()]
        wrong = [ref.number for ref in update.removed]
        for ref in update.added:
            if ref.number > max(tops):
                break
            if self._tile_hash(ref.number) not in (None, ref.hash):
                wrong.append(ref.number)
                break
        shown, replaced = self.shown, self._replaced
        if wrong:
            lowest = min(wrong)
            line = replaced.kept
            if shown is not None and line is None:
                line = shown.head.number
            if line is not None and lowest <= line:
                hashes = {
                    number: block_hash
                    for number in range(lowest, line + 1)
                    if (block_hash := gone.get(number) or self._tile_hash(number)) is not None
                }
                replaced.leave(lowest - 1, line, hashes, now_ms)
            for tiling in self.tilings.values():
                tiling.cut(lowest - 1)
        if shown is not None and replaced.kept is not None:
            replaced.join(self.fork.hashes, shown.head.number)

    def _detach(self, was_final: int) -> None:
        """A snapshot that begins above tiles that are not final says nothing about them.

        They stay visible until history reaches as far, but nothing is built on them.
        """
        base = self.fork.base
        assert base is not None
        for tiling in self.tilings.values():
            tile = tiling.top_tile()
            if tile is not None and not tile.history and was_final < tiling.top < base:
                tiling.cut(was_final)

    def _tile_hash(self, number: int) -> bytes | None:
        """The hash of a block that a tile ends in."""
        for tiling in self.tilings.values():
            tile = tiling.tile_ending(number)
            if tile is not None:
                return tile.last_hash
        return None

    def _block(self, number: int) -> BlockRef | None:
        """The block of that height on our chain, where its hash is known."""
        block_hash = self.fork.hash_at(number) or self._tile_hash(number)
        return BlockRef(number, block_hash) if block_hash is not None else None

    def _head(self) -> BlockRef | None:
        number = self.head_number
        if number < self.floor:
            return None
        for tiling in self.tilings.values():
            tile = tiling.tile_ending(number)
            if tile is not None:
                return last_block(tile)
        sealed = self._sealed_end
        return sealed if sealed and sealed.number == number else self._block(number)

    def _row(self, head: BlockRef) -> CanonRow:
        final = self._final_at(head)
        safe = self.fork.safe
        if safe is None or (final is not None and safe.number < final.number):
            safe = final
        elif safe.number > head.number:
            safe = head
        return CanonRow(
            self.generation,
            self._seq,
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
            loads += [load for load, count in tiling.uses.items() if count > above.get(load, 0)]
        return tuple(sorted(loads))

    def _reorg(self, row: CanonRow) -> Reorg | None:
        """What of the shown chain a row replaces."""
        old, kept = self.shown, self._replaced.kept
        if old is None or kept is None:
            return None
        added = [
            BlockRef(number, block_hash)
            for number in range(kept + 1, row.head.number + 1)
            if (block_hash := self.fork.hash_at(number)) is not None
        ]
        ancestor = self._block(kept)
        return Reorg(ancestor, old.head, row.head, self._replaced.removed(), tuple(added))

    def _overdue(self, number: int) -> list[Missing]:
        """The streams that hold up block `number`, where another one has it."""
        late, durable = [], False
        for stream, tiling in self.tilings.items():
            pieces = list(tiling.candidates(number)) if tiling.top < number else []
            durable = durable or bool(pieces) or tiling.top >= number
            if tiling.top < number and not any(self._on_chain(tiling, p) for p in pieces):
                late.append(stream)
        known = self.fork.hash_at(number)
        if not durable or (
            known is None and self.fork.base is not None and number > self.fork.base
        ):
            return []
        if known is not None:
            return [Missing(stream, number, number, known) for stream in late]
        start = self.facts.segment_start(number)
        end = start + self.facts.segment_blocks - 1
        return [Missing(stream, start, end, None) for stream in late]


def _loads(rows: Sequence[LedgerRow]) -> list[Load]:
    """Ledger rows by load, in the order in which the loads came."""
    by_load: dict[int, dict[int, Piece]] = {}
    for row in rows:
        history = row.lane == "history"
        piece = Piece(row.from_block, row.to_block, row.last_hash, row.load_id, history)
        # A ledger row may have been written twice; it is the same fact.
        by_load.setdefault(row.load_id, {})[row.from_block] = piece
    return [
        Load(load_id, tuple(pieces[first] for first in sorted(pieces)))
        for load_id, pieces in by_load.items()
    ]
