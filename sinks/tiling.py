"""Complete loads of one stream in, a gapless tiling of the visible range by loads out; no IO.

A *tile* is a piece (one segment of one load) that stands for its blocks. Tiles of a stream never
overlap and leave no gap from the lowest to the top, so every block's rows come from exactly one
load. Three rules keep that true, because a load becomes visible whole:

1. A load is taken whole or not at all: while one of its pieces is a tile, all its pieces up to
   the top are tiles, and those above it wait for their turn before any other candidate.
2. Of several loads with the same piece the first one taken keeps it.
3. A piece may replace smaller tiles of its own range (history over head blocks, a fold over what
   it folded), if it ends in the same block and those tiles' loads go with it entirely.

Whether a piece belongs to the chain is not decided here: see ``sinks.canon``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.chains import ChainFacts
from schemas.segments import BlockRef


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment as one load holds it."""

    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""
    last_hash: bytes
    """Hash of the last block."""
    load_id: int
    """The load."""
    history: bool
    """Whether it came by the history lane, and so is final."""

    @property
    def key(self) -> tuple[int, int, bytes]:
        """What it holds, whichever load holds it."""
        return (self.from_block, self.to_block, self.last_hash)


@dataclass(frozen=True, slots=True)
class Load:
    """A complete load of one stream: all its segments, in one partition."""

    load_id: int
    """The load."""
    pieces: tuple[Piece, ...]
    """Its segments in order of blocks."""


@dataclass(slots=True)
class _Open:
    """What is known of one open partition."""

    tiles: list[Piece] = field(default_factory=list)
    starts: dict[int, list[Piece]] = field(default_factory=dict)
    ends: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    keys: dict[tuple[int, int, bytes], int] = field(default_factory=dict)
    loads: dict[int, Load] = field(default_factory=dict)


class Tiling:
    """The tiles and the waiting candidates of one stream."""

    def __init__(self, facts: ChainFacts, floor: int) -> None:
        self.facts = facts
        self.top = floor - 1
        """The last block that is tiled."""
        self.uses: Counter[int] = Counter()
        """Tiles of each load that has any."""
        self._reach: dict[int, tuple[int, int]] = {}
        """First and last block of those of these loads that hold more than one."""
        self.frozen: set[int] = set()
        """Partitions whose tiles may not be replaced."""
        self.low = floor
        """The first block that is tiled, once there is a tile."""
        self._start = floor
        self._open: dict[int, _Open] = {}

    def take(self, load: Load) -> list[Piece] | None:
        """Keep a load as a candidate.

        Returns
        -------
        list[Piece] | None
            None where it was kept; else the pieces that no other load holds.
        """
        part = self._part(load.pieces[0].from_block)
        if load.load_id in part.loads:
            return []
        free = [piece for piece in load.pieces if piece.key not in part.keys]
        if len(free) < len(load.pieces):
            return [piece for piece in free if piece.to_block > self.top]
        self._keep(part, load)
        return None

    def candidates(self, number: int) -> Iterator[Piece]:
        """Pieces that hold block `number` and may be the next tile, in the order they came."""
        part = self._open.get(self.facts.partition(number))
        if part is None:
            return
        found = list(part.starts.get(number, ()))
        start = self.facts.segment_start(number)
        if start < number:
            found += [p for p in part.starts.get(start, ()) if p.to_block >= number]
        used = [piece for piece in found if piece.load_id in self.uses]
        yield from used or found

    def candidates_below(self, number: int) -> Iterator[Piece]:
        """Pieces whose last block is `number`, of one grid segment."""
        part = self._open.get(self.facts.partition(number))
        if part is not None:
            pieces = part.starts.get(self.facts.segment_start(number), ())
            found = [piece for piece in pieces if piece.to_block == number]
            yield from [piece for piece in found if piece.load_id in self.uses] or found

    def ends_at(self, number: int, last_hash: bytes) -> bool:
        """Whether a tile or a candidate ends in that block."""
        part = self._open.get(self.facts.partition(number))
        return part is not None and part.ends[(number, last_hash)] > 0

    def load_of(self, piece: Piece) -> Load:
        """The load of a piece that is kept here."""
        return self._part(piece.from_block).loads[piece.load_id]

    def top_tile(self) -> Piece | None:
        """The tile that ends at the top; None where that block is sealed, or there is none."""
        part = self._open.get(self.facts.partition(self.top))
        return part.tiles[-1] if part is not None and part.tiles else None

    def tile_ending(self, number: int) -> Piece | None:
        """The tile whose last block is `number`."""
        part = self._open.get(self.facts.partition(number))
        tiles = part.tiles if part is not None else ()
        index = bisect_left(tiles, number, key=lambda tile: tile.to_block)
        found = index < len(tiles) and tiles[index].to_block == number
        return tiles[index] if found else None

    def tile_holding(self, number: int) -> Piece | None:
        """The tile that holds block `number`."""
        part = self._open.get(self.facts.partition(number))
        tiles = part.tiles if part is not None else ()
        index = bisect_left(tiles, number, key=lambda tile: tile.to_block)
        found = index < len(tiles) and tiles[index].from_block <= number
        return tiles[index] if found else None

    def history_top(self) -> int:
        """The last block of the highest tile that came by history; -1 where there is none."""
        for partition in reversed(self.open_partitions()):
            for tile in reversed(self._open[partition].tiles):
                if tile.history:
                    return tile.to_block
        return -1

    def tiles(self, partition: int) -> Sequence[Piece]:
        """The tiles of an open partition, in order of blocks."""
        part = self._open.get(partition)
        return part.tiles if part is not None else ()

    def open_partitions(self) -> list[int]:
        """The partitions of which anything is held, in order."""
        return sorted(self._open)

    def push(self, piece: Piece) -> bool:
        """Raise the top by a candidate that holds the block after it.

        Returns
        -------
        bool
            False where its load cannot be taken whole; the load is dropped then.
        """
        part, load = self._part(piece.from_block), self.load_of(piece)
        if not self._replace(part, load, grow_to=piece.to_block):
            self._drop(part, load)
            return False
        self.top = piece.to_block
        self.low = min(self.low, piece.from_block)
        return True

    def push_below(self, piece: Piece) -> bool:
        """Lower the lowest tile by a candidate of one piece that ends right below it."""
        part = self._part(piece.from_block)
        if len(self.load_of(piece).pieces) > 1 and any(
            other.from_block > piece.from_block and self._tile_at(part, other) is None
            for other in self.load_of(piece).pieces
        ):
            return False
        part.tiles.insert(0, piece)
        self._use(self.load_of(piece), 1)
        self.low = self._start = piece.from_block
        return True

    def swap(self, load: Load) -> bool:
        """Let a candidate wholly below the top replace the tiles of its ranges, if it may."""
        part = self._part(load.pieces[0].from_block)
        return self._replace(part, load, grow_to=None)

    def fold(self, load: Load) -> bool:
        """Let a load that copies tiles take their place: the pieces may be the same ones."""
        part = self._part(load.pieces[0].from_block)
        if load.load_id in part.loads or not self._replace(part, load, grow_to=None):
            return False
        self._keep(part, load)
        return True

    def cut(self, number: int) -> None:
        """Take away the tiles above block `number`, and any tile that holds it and more."""
        while self.top > number and (tile := self.top_tile()) is not None:
            self._part(tile.from_block).tiles.pop()
            self._unuse(tile)
            self.top = max(tile.from_block, self._start) - 1

    def reject(self, load: Load) -> None:
        """Forget a candidate that is no tile."""
        self._drop(self._part(load.pieces[0].from_block), load)

    def seal(self, partition: int) -> None:
        """Forget a partition that was sealed: its tiles, loads and candidates."""
        part = self._open.pop(partition, None)
        self.frozen.discard(partition)
        for load_id in {tile.load_id for tile in part.tiles} if part else ():
            self._forget(load_id)

    def pieces_of(self, partition: int, load_id: int) -> int:
        """How many segments a load of an open partition holds."""
        return len(self._open[partition].loads[load_id].pieces)

    def straddles(self, floor: int, head: int) -> bool:
        """Whether a load that begins at or below `head` holds blocks outside of floor to head."""
        return any(first < floor or first <= head < last for first, last in self._reach.values())

    def above(self, number: int) -> Mapping[int, int]:
        """How many tiles of each load begin above block `number`."""
        found: Counter[int] = Counter()
        for partition in reversed(self.open_partitions()):
            for tile in reversed(self._open[partition].tiles):
                if tile.from_block <= number:
                    return found
                found[tile.load_id] += 1
        return found

    def _part(self, number: int) -> _Open:
        return self._open.setdefault(self.facts.partition(number), _Open())

    def _keep(self, part: _Open, load: Load) -> None:
        part.loads[load.load_id] = load
        for piece in load.pieces:
            part.keys[piece.key] = load.load_id
            part.starts.setdefault(piece.from_block, []).append(piece)
            part.ends[(piece.to_block, piece.last_hash)] += 1

    def _drop(self, part: _Open, load: Load) -> None:
        if part.loads.pop(load.load_id, None) is None:
            return
        for piece in load.pieces:
            if part.keys.get(piece.key) == load.load_id:
                del part.keys[piece.key]
            rest = [p for p in part.starts[piece.from_block] if p.load_id != load.load_id]
            if rest:
                part.starts[piece.from_block] = rest
            else:
                del part.starts[piece.from_block]
            end = (piece.to_block, piece.last_hash)
            part.ends[end] -= 1
            if not part.ends[end]:
                del part.ends[end]

    def _use(self, load: Load, tiles: int) -> None:
        self.uses[load.load_id] += tiles
        first, last = load.pieces[0].from_block, load.pieces[-1].to_block
        if first < last:
            self._reach[load.load_id] = (first, last)

    def _forget(self, load_id: int) -> None:
        del self.uses[load_id]
        self._reach.pop(load_id, None)

    def _unuse(self, tile: Piece) -> None:
        self.uses[tile.load_id] -= 1
        if not self.uses[tile.load_id]:
            self._forget(tile.load_id)

    def _tile_at(self, part: _Open, piece: Piece) -> Piece | None:
        """The tile that is this very piece, if it is one."""
        index = bisect_left(part.tiles, piece.from_block, key=_from_block)
        found = index < len(part.tiles) and part.tiles[index] == piece
        return piece if found else None

    def _replace(self, part: _Open, load: Load, grow_to: int | None) -> bool:
        """Make tiles of a load's pieces that are not wholly above `grow_to` (or the top).

        Nothing changes where the tiles in their way are not theirs to replace.
        """
        limit = self.top if grow_to is None else grow_to
        spans: list[tuple[int, int, Piece]] = []
        leaving: Counter[int] = Counter()
        for piece in load.pieces:
            outside = piece.from_block > limit or piece.to_block < self.low
            if outside or self._tile_at(part, piece) is not None:
                continue
            first = bisect_left(part.tiles, piece.from_block, key=_from_block)
            last = bisect_left(part.tiles, piece.to_block + 1, key=_from_block)
            if not self._covers(part, piece, first, last, limit):
                return False
            spans.append((first, last, piece))
            leaving.update(tile.load_id for tile in part.tiles[first:last])
        if leaving and self.facts.partition(load.pieces[0].from_block) in self.frozen:
            return False
        if any(count != self.uses[load_id] for load_id, count in leaving.items()):
            return False
        for first, last, piece in reversed(spans):
            part.tiles[first:last] = [piece]
        for load_id in leaving:
            self._forget(load_id)
            self._drop(part, part.loads[load_id])
        if spans:
            self._use(load, len(spans))
        return bool(spans)

    def _covers(self, part: _Open, piece: Piece, first: int, last: int, limit: int) -> bool:
        """Whether a piece may stand where ``part.tiles[first:last]`` stand."""
        before = part.tiles[first - 1] if first else None
        if before is not None and before.to_block >= piece.from_block:
            return False
        if piece.to_block > self.top:
            return piece.to_block <= limit and piece.from_block <= self.top + 1
        if first == last:
            return False
        end = part.tiles[last - 1]
        return (end.to_block, end.last_hash) == (piece.to_block, piece.last_hash)


def _from_block(piece: Piece) -> int:
    return piece.from_block


def last_block(piece: Piece) -> BlockRef:
    """The block that a piece ends with."""
    return BlockRef(piece.to_block, piece.last_hash)
