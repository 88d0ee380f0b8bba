"""A stream's tiles in, which loads to fold into one out; no IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sinks.canon import Canon
from sinks.tiling import Piece, Tiling


@dataclass(frozen=True, slots=True)
class FoldSettings:
    """When loads are folded."""

    head_segments_min: int = 4
    """Grid segments of final head blocks that are worth a fold."""
    fold_segments_max: int = 50
    """Grid segments of one fold."""
    loads_max: int = 600
    """Visible loads above which small history loads are folded, too."""
    fold_loads_max: int = 64
    """History loads of one fold."""


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


def plan_folds(canon: Canon, settings: FoldSettings) -> list[Fold]:
    """What is worth folding now: final head blocks, and small history loads if there are many."""
    shown = canon.shown
    if shown is None or shown.finalized is None:
        return []
    top = min(shown.head.number, shown.finalized.number)
    crowded = len(shown.loads) > settings.loads_max
    folds: list[Fold] = []
    for stream, tiling in canon.tilings.items():
        for partition in tiling.open_partitions():
            if partition in tiling.frozen:
                continue
            tiles = [tile for tile in tiling.tiles(partition) if tile.to_block <= top]
            heads = _head_segments(tiling, tiles, settings)
            if len(heads) >= settings.head_segments_min:
                fold = _fold(stream, partition, tiling, heads[: settings.fold_segments_max])
                folds += [fold] if fold else []
            elif crowded:
                groups = _small_loads(tiling, partition, tiles, settings.fold_loads_max)
                fold = _fold(stream, partition, tiling, groups)
                folds += [fold] if fold and len(fold.sources) > 1 else []
    return folds


def _head_segments(
    tiling: Tiling, tiles: Sequence[Piece], settings: FoldSettings
) -> list[tuple[Piece, ...]]:
    """Adjacent grid segments that are wholly tiled by more than one tile each."""
    size = tiling.facts.segment_blocks
    by_segment: dict[int, list[Piece]] = {}
    for tile in tiles:
        by_segment.setdefault(tile.from_block // size, []).append(tile)
    found: list[tuple[Piece, ...]] = []
    for segment, parts in by_segment.items():
        whole = parts[0].from_block == segment * size
        whole = whole and parts[-1].to_block == segment * size + size - 1
        adjacent = not found or found[-1][-1].to_block + 1 == parts[0].from_block
        if not (whole and len(parts) > 1 and adjacent):
            if len(found) >= settings.head_segments_min:
                break
            found = []
        if whole and len(parts) > 1:
            found.append(tuple(parts))
    return found


def _small_loads(
    tiling: Tiling, partition: int, tiles: Sequence[Piece], loads_max: int
) -> list[tuple[Piece, ...]]:
    """The tiles of the loads that hold the fewest blocks, each tile as it is."""
    blocks: Counter[int] = Counter()
    for tile in tiles:
        blocks[tile.load_id] += tile.to_block - tile.from_block + 1
    held = Counter(tile.load_id for tile in tiles)
    whole = [load_id for load_id in held if tiling.pieces_of(partition, load_id) == held[load_id]]
    few = frozenset(sorted(whole, key=lambda load_id: (blocks[load_id], load_id))[:loads_max])
    return [(tile,) for tile in tiles if tile.load_id in few]


def _fold(
    stream: str, partition: int, tiling: Tiling, groups: Iterable[tuple[Piece, ...]]
) -> Fold | None:
    """The fold of groups of tiles into a segment each; None where a load is not whole in it."""
    groups = list(groups)
    while groups:
        held = Counter(tile.load_id for group in groups for tile in group)
        if all(tiling.pieces_of(partition, load_id) == held[load_id] for load_id in held):
            break
        groups.pop()
    if not groups:
        return None
    segments = tuple(
        (group[0].from_block, group[-1].to_block, group[-1].last_hash) for group in groups
    )
    return Fold(stream, partition, segments, frozenset(held))
