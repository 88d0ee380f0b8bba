"""A range of blocks in, the same rows fetched once more and what they mend out.

The same core for both ways to run: segments come again (through the topic `requests`, or fetched
here), what is visible is compared with them, and what differs is mended by one canon row.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from infra.display import Display
from infra.patience import patiently
from infra.storage import Storage
from infra.terminal import counted
from schemas.errors import HeadraceError
from schemas.errors_canon import NothingVisible
from schemas.errors_replay import ReplayRangeEmpty
from sinks.canon_row import CanonRow
from sinks.canon_table import read_canon
from sinks.fresh import Fresh, loaded_segments
from sinks.mender import Damage, Mender

CHUNK_SEGMENTS = 50
"""Segments that come again, and are compared, at a time."""
BLOCKS_SHOWN_MAX = 5


class Again(Protocol):
    """How segments come again."""

    def load(self, starts: Sequence[int], loaded: Callable[[], Fresh]) -> None:
        """Have grid segments loaded once more, and wait until `loaded` names all of them."""
        ...


Claim = Callable[[], "contextlib.AbstractContextManager[int]"]
"""Makes this process the chain's publisher for a moment; gives its generation."""


@dataclass(slots=True)
class Replayed:
    """What a replay came to."""

    from_block: int
    """First block that came again."""
    to_block: int
    """Last one."""
    segments: int = 0
    """Grid segments that did."""
    uncompared: int = 0
    """Those of them that are not final: loaded, and not compared with what was there."""
    mended: list[Damage] = field(default_factory=list)
    """What was not as it came again, and was mended."""


class Replay:
    """Replays ranges of one chain.

    Parameters
    ----------
    storage
        The chain's database.
    again
        How segments come again.
    claim
        See `Claim`; only called where something is to be mended.
    display
        Told of each part.
    beyond
        Whether what is not visible yet, or not final, comes again, too: its messages or its rows
        may have been lost. It is loaded, and not compared.
    told
        The highest block that was ever sent: none above it can have been lost. None where nobody
        knows.
    """

    def __init__(
        self,
        storage: Storage,
        again: Again,
        claim: Claim,
        display: Display,
        *,
        beyond: bool = False,
        told: int | None = None,
    ) -> None:
        self._beyond, self._told = beyond, told
        self._storage, self._again, self._claim, self._display = storage, again, claim, display
        self._mender = Mender(storage.connect(), storage.database, storage.facts, storage.tables)

    def run(self, from_block: int, to_block: int) -> Replayed:
        """Replay the whole grid segments that touch a range; see `beyond` for which.

        Raises
        ------
        NothingVisible, ReplayRangeEmpty, ReplayStalled, ReplayOtherChain
        HeadraceError
            One of HR-40xx.
        """
        row = self._shown()
        seen = self._seen(row, from_block, to_block)
        unseen = self._unseen(row, from_block, to_block)
        starts = [*seen, *unseen]
        if not starts:
            raise self._nothing(row, from_block, to_block)
        done = Replayed(starts[0], self._last(starts))
        for work, whole in ((self._replay, seen), (self._load, unseen)):
            for at in range(0, len(whole), CHUNK_SEGMENTS):
                part = whole[at : at + CHUNK_SEGMENTS]
                damages = work(part)
                done.segments += len(part)
                done.uncompared += len(part) if whole is unseen else 0
                done.mended += damages
                verdict = "mended" if damages else "as they were"
                self._display.note(
                    f"{done.segments:,}/{len(starts):,} segments came again; blocks {part[0]:,} to "
                    f"{self._last(part):,}: {verdict if whole is seen else 'loaded'}"
                )
                for damage in damages:
                    self._display.note(f"  {damage_text(damage)}", "yellow")
        return done

    def _last(self, starts: Sequence[int]) -> int:
        """The last block of the last of some segments, or of what was ever sent of it."""
        end = starts[-1] + self._storage.facts.segment_blocks - 1
        return end if self._told is None else min(end, self._told)

    def _shown(self) -> CanonRow | None:
        return patiently(lambda: read_canon(self._storage.reader, self._storage.database))

    def _seen(self, row: CanonRow | None, from_block: int, to_block: int) -> list[int]:
        """First blocks of the segments of a range that are visible and final."""
        if row is None:
            return []
        facts = self._storage.facts
        size, first = facts.segment_blocks, facts.segment_start(max(from_block, row.floor))
        final = _final(row)
        last = min(to_block, final)
        return [at for at in range(first, last + 1, size) if at + size - 1 <= final]

    def _unseen(self, row: CanonRow | None, from_block: int, to_block: int) -> list[int]:
        """First blocks of the segments of a range whose last block is not visible, or not final.

        What is visible and not final is loaded again as well: rows of it may have been lost.
        """
        if not self._beyond:
            return []
        facts = self._storage.facts
        size = facts.segment_blocks
        starts = range(facts.segment_start(from_block), to_block + 1, size)
        final = -1 if row is None else _final(row)
        last = to_block if self._told is None else self._told
        return [at for at in starts if at + size - 1 > final and at <= last]

    def _nothing(self, row: CanonRow | None, from_block: int, to_block: int) -> HeadraceError:
        if row is None:
            return NothingVisible(database=self._storage.database)
        return ReplayRangeEmpty(
            from_block=from_block,
            to_block=to_block,
            floor=row.floor,
            final=_final(row),
            segment_blocks=self._storage.facts.segment_blocks,
        )

    def _load(self, starts: Sequence[int]) -> list[Damage]:
        """Have segments come that are not visible yet, or not final: nothing is compared."""
        since, storage = self._now(), self._storage
        named = (storage.reader, storage.database, storage.facts, since, starts, self._told)
        self._again.load(starts, lambda: loaded_segments(*named))
        return []

    def _replay(self, starts: Sequence[int]) -> list[Damage]:
        """Have segments come again, and mend what differs from them."""
        since = self._now()
        known: set[int] = set()

        def fetch(wanted: Sequence[int]) -> Fresh:
            missing = sorted(set(wanted) - known)
            for at in range(0, len(missing), CHUNK_SEGMENTS):
                part = missing[at : at + CHUNK_SEGMENTS]
                self._again.load(part, lambda part=part: self._mender.fresh(since, part))  # type: ignore[misc]
            known.update(wanted)
            return self._mender.fresh(since, sorted(known))

        fresh = fetch(starts)
        shown = self._shown()
        assert shown is not None, "it was shown before"
        damages = self._mender.compare(shown, starts, fresh)
        if damages:
            fresh = fetch(self._mender.needed(shown, damages))
            mended = self._mender.mend(shown, damages, fresh)
            with self._claim() as generation:
                newest = self._shown()
                assert newest is not None
                self._mender.show(newest, mended, generation)
        return damages

    def _now(self) -> datetime:
        ((now,),) = self._storage.reader.execute("SELECT now64(6, 'UTC')")
        found: datetime = now
        return found


def _final(row: CanonRow) -> int:
    """The last block that is visible and final."""
    return min(row.head.number, row.finalized.number if row.finalized else -1)


def damage_text(damage: Damage) -> str:
    """A damage for people."""
    blocks = ", ".join(f"{number:,}" for number in damage.blocks[:BLOCKS_SHOWN_MAX])
    more = len(damage.blocks) - BLOCKS_SHOWN_MAX
    where = f"load {damage.load_id}" if damage.load_id is not None else "a sealed partition"
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{', '.join(damage.tables)} in {where}: blocks {blocks}{rest}"


def show_replayed(done: Replayed, display: Display) -> None:
    """Say what a replay came to."""
    if display.terminal.json:
        display.terminal.write_json(
            {
                "from_block": done.from_block,
                "to_block": done.to_block,
                "segments": done.segments,
                "uncompared": done.uncompared,
                "mended": [
                    {
                        "stream": damage.stream,
                        "tables": list(damage.tables),
                        "partition": damage.partition,
                        "blocks": list(damage.blocks),
                        "sealed": damage.load_id is None,
                    }
                    for damage in done.mended
                ],
            }
        )
        return
    blocks = done.to_block - done.from_block + 1
    told = (
        f"{len(done.mended)} load(s) or partition(s) were mended"
        if done.mended
        else "nothing was wrong, and nothing has changed"
    )
    loaded = f"{done.uncompared:,} segment(s) were not visible, or not final: loaded, not compared"
    if done.uncompared == done.segments:
        told = loaded
    elif done.uncompared:
        told += f"; {loaded}"
    display.note(
        f"{counted(blocks)} blocks, {done.from_block:,} to {done.to_block:,}, came again: {told}"
    )


@contextlib.contextmanager
def next_generation(newest: Callable[[], int]) -> Iterator[int]:
    """The claim where a lock makes this process the only one: the next free generation."""
    yield newest() + 1


def wait_for(
    loaded: Callable[[], Fresh],
    wanted: int,
    seconds: float,
    poll_seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Fresh:
    """Wait until so many segments are loaded, or none has come for `seconds`: what there is."""
    found: Fresh = {}
    moved = clock()
    while True:
        before, found = len(found), patiently(loaded)
        now = clock()
        if len(found) > before:
            moved = now
        if len(found) >= wanted or now - moved > seconds:
            return found
        sleep(poll_seconds)
