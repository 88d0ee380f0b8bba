"""A stream's tiles in, which loads to fold into one out; no IO.

What is folded are whole grid segments of final blocks, and nothing else. A segment of which a part
is not final yet waits: its blocks, once part of a load that holds other segments, too, could be
folded again only with all of that. Loads are folded whole, so segments that share a load are
folded together (a *knot*), and a knot that holds a part of a load only is left out, not its
neighbours.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from sinks.canon import Canon
from sinks.ledger import LedgerRow
from sinks.tiling import Piece, Tiling


@dataclass(frozen=True, slots=True)
class FoldSettings:
    """When loads are folded."""

    head_segments_min: int = 4
    """Grid segments of final head blocks that are worth a fold."""
    head_loads_min: int = 40
    """Loads of such segments that are worth one, however few the segments are."""
    fold_segments_max: int = 50
    """Grid segments of one fold, where they do not share loads."""
    loads_max: int = 600
    """Visible loads of whole, final grid segments above which small ones are folded, too."""
    fold_loads_max: int = 64
    """Loads of such a fold."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Loads to copy into one."""

    stream: str
    """The stream."""
    partition: int
    """The partition that holds them."""
    segments: tuple[tuple[int, int, bytes], ...]
    """(first, last block, last hash) of what the new load holds, in order of blocks."""
    sources: frozenset[int]
    """The loads, whole."""


@dataclass(frozen=True, slots=True)
class _Knot:
    """Whole grid segments that are folded together or not at all."""

    groups: tuple[tuple[Piece, ...], ...]
    """The tiles of each segment, in order of blocks."""
    loads: frozenset[int]
    """Their loads, whole."""
    blocks: int
    """Blocks that they hold."""
    unfolded: int
    """Those of the segments that more than one load holds."""


def plan_folds(canon: Canon, settings: FoldSettings) -> list[Fold]:
    """What is worth folding now: final head blocks, and small loads if there are many."""
    shown = canon.shown
    if shown is None or shown.finalized is None:
        return []
    top = min(shown.head.number, shown.finalized.number)
    found = {
        (stream, partition): _knots(tiling, partition, top)
        for stream, tiling in canon.tilings.items()
        for partition in tiling.open_partitions()
        if partition not in tiling.frozen
    }
    folded = sum(len(one.loads) for knots in found.values() for one in knots if not one.unfolded)
    folds: list[Fold] = []
    for (stream, partition), knots in found.items():
        chosen = [_heads([one for one in knots if one.unfolded], settings)]
        if folded > settings.loads_max:
            small = [one for one in knots if not one.unfolded]
            chosen.append(_small(small, settings.fold_loads_max))
        folds += [_fold(stream, partition, some) for some in chosen if some]
    return folds


def _knots(tiling: Tiling, partition: int, top: int) -> list[_Knot]:
    """The whole grid segments up to `top`, those that share a load together, in order of blocks."""
    groups = _segments(tiling, partition, top)
    held = Counter(tile.load_id for group in groups for tile in group)
    knots: list[_Knot] = []
    for tied in _tied([{tile.load_id for tile in group} for group in groups]):
        own = tuple(groups[index] for index in tied)
        loads = frozenset(tile.load_id for group in own for tile in group)
        if all(tiling.pieces_of(partition, load_id) == held[load_id] for load_id in loads):
            blocks = sum(group[-1].to_block - group[0].from_block + 1 for group in own)
            unfolded = sum(any(t.load_id != group[0].load_id for t in group) for group in own)
            knots.append(_Knot(own, loads, blocks, unfolded))
    return knots


def _tied(loads: Sequence[Set[int]]) -> list[list[int]]:
    """The indices of segments that share loads, directly or through others, in order of blocks."""
    members: dict[int, list[int]] = {}
    for index, some in enumerate(loads):
        for load_id in some:
            members.setdefault(load_id, []).append(index)
    found: list[list[int]] = []
    seen: set[int] = set()
    for first in range(len(loads)):
        if first in seen:
            continue
        known, tied, waiting = set[int](), {first}, [first]
        while waiting:
            new = loads[waiting.pop()] - known
            known |= new
            reached = {index for load_id in new for index in members[load_id]} - tied
            tied |= reached
            waiting += reached
        seen |= tied
        found.append(sorted(tied))
    return found


def _segments(tiling: Tiling, partition: int, top: int) -> list[tuple[Piece, ...]]:
    """The tiles of each grid segment that lies wholly between the lowest tile and `top`."""
    size = tiling.facts.segment_blocks
    found: list[tuple[Piece, ...]] = []
    parts: list[Piece] = []
    for tile in tiling.tiles(partition):
        if tile.to_block > top:
            break
        if not parts and tile.from_block % size:
            continue
        parts.append(tile)
        if (tile.to_block + 1) % size == 0:
            found.append(tuple(parts))
            parts = []
    return found


def _heads(knots: Sequence[_Knot], settings: FoldSettings) -> list[_Knot]:
    """The lowest knots, as many as one fold takes; none where they are not worth it yet."""
    segments = sum(one.unfolded for one in knots)
    loads = sum(len(one.loads) for one in knots)
    if segments < settings.head_segments_min and loads < settings.head_loads_min:
        return []
    chosen: list[_Knot] = []
    room = settings.fold_segments_max
    for one in knots:
        room -= len(one.groups)
        if chosen and room < 0:
            break
        chosen.append(one)
    return chosen


def _small(knots: Iterable[_Knot], loads_max: int) -> list[_Knot]:
    """The knots of the fewest blocks, none of which holds more than the others together.

    So whatever is copied ends in a load of twice the blocks at least: no row is copied more often
    than a partition's blocks can be doubled.
    """
    chosen: list[_Knot] = []
    for one in sorted(knots, key=lambda one: (one.blocks, one.groups[0][0].from_block)):
        if sum(len(other.loads) for other in chosen) + len(one.loads) > loads_max:
            break
        chosen.append(one)
    while chosen and 2 * chosen[-1].blocks > sum(one.blocks for one in chosen):
        chosen.pop()
    return chosen if len(chosen) > 1 else []


def _fold(stream: str, partition: int, knots: Sequence[_Knot]) -> Fold:
    """The fold of some knots, a segment for each group of tiles."""
    groups = sorted((group for one in knots for group in one.groups), key=_first)
    segments = tuple(
        (group[0].from_block, group[-1].to_block, group[-1].last_hash) for group in groups
    )
    return Fold(stream, partition, segments, frozenset().union(*(one.loads for one in knots)))


def _first(group: Sequence[Piece]) -> int:
    return group[0].from_block


def runs(fold: Fold, rows: Iterable[LedgerRow]) -> list[list[LedgerRow]]:
    """What the new load holds: a run of blocks of one content version for each ledger row of it.

    Content versions may change amid a load, and amid a grid segment, as where two ingesters prove
    differently. Whoever proved a block is known of each block still, and no load waits for it.

    Parameters
    ----------
    fold
        What was planned; a plan does not know contents.
    rows
        The ledger rows of its loads, in order of blocks.

    Returns
    -------
    list of list of LedgerRow
        The rows of each run, in order of blocks: whole grid segments, but for those that two
        content versions share.
    """
    firsts = [first for first, _, _ in fold.segments]

    def place(row: LedgerRow) -> tuple[int, str]:
        return bisect_right(firsts, row.from_block), row.content_version

    return [list(run) for _, run in groupby(rows, key=place)]
