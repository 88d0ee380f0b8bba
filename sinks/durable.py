"""Ledger rows and fork states in, the durable prefix of the chain out. No IO, no clock.

A block is durable when every core stream has a tile for it (``sinks.tiling``) that lies on the
chain. What lies on the chain:

- where the fork view knows the hash of a piece's last block, the piece must end in that hash, and
  the tile below must end in the fork's hash too (history's last block is the parent of the first
  head block);
- below the fork view only history pieces count, above something final, and every core stream must
  have a piece that ends in the same block: the first such block is kept;
- no two streams are on different branches at one height: history that the fork view does not know
  waits while another stream has head blocks there, and head blocks while another has such history.

The first load of a segment that is taken keeps it until something replaces all of it (a fold,
history over head blocks, a seal). Loads of an older generation than a rewind's that reach above its
block do not exist for us; neither do other content versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schemas.chains import ChainFacts
from schemas.segments import BlockRef
from sinks.canon_row import Missing, Rewound
from sinks.fork_view import ForkView
from sinks.ledger import LedgerRow
from sinks.tiling import Load, Piece, Tiling, last_block


class Durable:
    """The tilings of the core streams, and the fork view that they follow.

    Parameters
    ----------
    facts
        The grid of segments and partitions.
    streams
        The core streams, with the content version that counts for each; None takes any.
    floor
        First block.
    sealed
        Partitions that are sealed.
    final
        The newest block known to be final.
    rewinds
        All rewinds.
    missing_after_ms
        How long the next block may wait for one stream while others have it.
    fork_gap_blocks_max
        Blocks below the fork view that are followed at once.
    """

    def __init__(
        self,
        facts: ChainFacts,
        streams: Mapping[str, str | None],
        floor: int,
        *,
        sealed: Iterable[int] = (),
        final: BlockRef | None = None,
        rewinds: Iterable[Rewound] = (),
        missing_after_ms: int,
        fork_gap_blocks_max: int,
    ) -> None:
        self.facts, self.streams, self.floor = facts, dict(streams), floor
        self.fork = ForkView()
        self.sealed = set(sealed)
        self.tilings = {name: Tiling(facts, floor) for name in streams}
        self._rewinds = tuple(rewinds)
        self._missing_after_ms = missing_after_ms
        self._fork_gap_blocks_max = fork_gap_blocks_max
        self._want_floor = floor
        self._final = final
        self._sealed_end: BlockRef | None = None
        self._chosen: dict[int, dict[int, bytes]] = {}
        self._named: dict[int, bytes] = {}
        self._missing: dict[Missing, None] = {}
        self._blocked = (-1, 0)
        self._dirty = False

    @property
    def head_number(self) -> int:
        """The last block that every core stream has a tile for; below the floor without any."""
        return min(tiling.top for tiling in self.tilings.values())

    @property
    def final_number(self) -> int:
        """The last block known to be final, -1 where none is."""
        return self._final.number if self._final else -1

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take complete loads in order: all ledger rows of each load at once."""
        for stream in self.streams:
            ours = [row for row in rows if row.stream == stream]
            # A load is shown whole or not at all: views choose its rows by its id alone.
            refused = {row.load_id for row in ours if not self._counts(row)}
            for load in loads_of([row for row in ours if row.load_id not in refused]):
                self._take(stream, load)
        self._extend()

    def lower_floor(self, floor: int) -> None:
        """Show blocks from `floor` on, once they reach up to the floor of now."""
        self._want_floor = min(floor, self._want_floor)
        self._extend()

    def fork_gap(self) -> tuple[BlockRef, int] | None:
        """The fork view's first block, where head blocks wait below, and how far down to look now.

        The next block to show is reached look by look: what is learnt stays over snapshots.
        """
        base, number = self.fork.base, self.head_number + 1
        if base is None or number >= base:
            return None
        for tiling in self.tilings.values():
            waiting = tiling.candidates(number) if tiling.top < number else ()
            if tiling.top < number and not any(not piece.history for piece in waiting):
                return None
        return BlockRef(base, self.fork.hashes[base]), max(number, base - self._fork_gap_blocks_max)

    def close_fork_gap(self, below: Sequence[BlockRef]) -> None:
        """Take blocks below the fork view's first one for its ancestors, which are final."""
        self.fork.extend_below(below)
        self._extend()

    def take_missing(self, now_ms: int) -> list[Missing]:
        """Segments to ingest again: refused by a conflict, or long overdue."""
        missing, self._missing = list(self._missing), {}
        number = self.head_number + 1
        if number != self._blocked[0]:
            self._blocked = (number, now_ms)
        elif now_ms - self._blocked[1] >= self._missing_after_ms:
            self._blocked = (number, now_ms)
            missing += self._overdue(number)
        return missing

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
        if known is not None and not self._history_agrees(piece):
            return False
        if known is not None:
            if below is None or tiling.top >= piece.from_block:
                return known == piece.last_hash
            linked = self.fork.hash_at(tiling.top) in (None, below.last_hash)
            return linked and known == piece.last_hash
        if not piece.history:
            return False
        if below is not None and not below.history and below.to_block > self.final_number:
            return False
        return all(self._settled(other, piece) for other in self.tilings.values()) and (
            self._agreed(piece)
        )

    def _history_agrees(self, piece: Piece) -> bool:
        """Whether no stream shows history there that the fork view does not know, being behind."""
        for tiling in self.tilings.values():
            tile = tiling.tile_holding(piece.to_block)
            if (
                tile is not None
                and tile.history
                and tile.to_block >= piece.to_block
                and self.fork.hash_at(tile.to_block) != tile.last_hash
            ):
                return False
        return True

    def _settled(self, tiling: Tiling, piece: Piece) -> bool:
        """Whether a stream shows no head block, of whatever branch, where `piece` is history."""
        if tiling.top < piece.from_block:
            return True
        tile = tiling.tile_holding(min(tiling.top, piece.to_block))
        if tile is None or tile.history or tile.to_block <= self.final_number:
            return True
        return last_block(tile) == last_block(piece)

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

    def _tile_hash(self, number: int) -> bytes | None:
        """The hash of a block that a tile ends in."""
        for tiling in self.tilings.values():
            tile = tiling.tile_ending(number)
            if tile is not None:
                return tile.last_hash
        return None

    def _block(self, number: int) -> BlockRef | None:
        """The block of that height on our chain, where its hash is known."""
        named = self._named_block(number)
        if named is not None:
            return named
        block_hash = self._tile_hash(number)
        return BlockRef(number, block_hash) if block_hash is not None else None

    def _named_block(self, number: int) -> BlockRef | None:
        """The block of that height where the fork view, or a row above it, names it."""
        block_hash = self.fork.hash_at(number) or self._named.get(number)
        return BlockRef(number, block_hash) if block_hash is not None else None

    def _tiled_hash(self, number: int) -> bytes | None:
        """The hash of a block on the chain of the tiles, where that is known.

        A tile names its last block only. Whoever names that one names its ancestors: the fork
        view, or the rows that are stored. Where nothing is tiled the fork view is all there is.
        """
        tiled = False
        for tiling in self.tilings.values():
            tile = tiling.tile_holding(number)
            if tile is None:
                continue
            tiled = True
            for hashes in (self.fork.hashes, self._named):
                if hashes.get(tile.to_block) == tile.last_hash and number in hashes:
                    return hashes[number]
        return None if tiled else self.fork.hash_at(number)

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


def loads_of(rows: Sequence[LedgerRow]) -> list[Load]:
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
