"""Ledger rows and ForkUpdates in, rows of the table `canon` out: the shell around ``sinks.canon``.

One publisher writes a chain's canon. It claims a generation, reads what its predecessors left,
and repeats their newest row under its own generation (``sinks.fence``): whatever a stale one still
writes sorts lower and is never seen. Rows are coalesced under load and written at once when idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from schemas.chains import ChainFacts
from schemas.errors import Transient
from schemas.errors_canon import CoreLoadMissing, HeightNotReached, StalePublisher
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon import Canon
from sinks.canon_row import CanonRow, Change, Missing, PublisherSettings
from sinks.canon_table import (
    append_canon,
    append_reorg,
    forget_untold,
    has_reorg,
    newest_generation,
)
from sinks.connection import Connection
from sinks.fence import fence_off, take_up
from sinks.fork_gap import read_ancestors, settle_doubts, tell_joined
from sinks.ledger import LedgerRow, read_ledger, recent_loads

SEEN_MAX = 100_000
"""Loads that are remembered as heard of; older ones are known to the canon, or refused."""

POLLED_MAX = 1_000
"""Loads whose ledger rows are read at once."""

T = TypeVar("T")


class Publisher:
    """Writes the canon of one chain.

    Parameters
    ----------
    connection
        A connection that nobody else uses.
    database
        The chain's database.
    facts
        The chain's grid.
    streams
        The core streams, with the content version that counts for each; None takes any.
    floor
        First block to show, where nothing is shown yet; a lower one than now lowers the floor.
    settings
        Pace and bounds.
    on_missing
        Called with a segment to ingest again; from the publisher's thread.
    on_row
        Called with each change that was written.
    clock
        Unix time in seconds.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        facts: ChainFacts,
        streams: Mapping[str, str | None],
        floor: int,
        *,
        settings: PublisherSettings | None = None,
        on_missing: Callable[[Missing], None] = lambda _missing: None,
        on_row: Callable[[Change], None] = lambda _change: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database, self.facts = database, facts
        self.settings = settings or PublisherSettings()
        self.generation = 0
        self.failure: BaseException | None = None
        """What ended the publisher's thread."""
        self.strays = 0
        """Fork updates that did not fit: duplicates, or a sign that one was missed."""
        self.doubt: tuple[BlockRef, int] | None = None
        """What keeps shown blocks in doubt, for want of rows: see `sinks.fork_gap`."""
        self._connection, self._streams, self._floor = connection, dict(streams), floor
        self._on_missing, self._on_row, self._clock = on_missing, on_row, clock
        self._canon: Canon | None = None
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._inbox: list[Sequence[LedgerRow] | ForkUpdate] = []
        self._claiming: int | None = None
        self._superseded: StalePublisher | None = None
        self._repeated, self._tried = (0, 0), -1
        self._shown: CanonRow | None = None
        self._unwritten: Change | None = None
        self._asked: dict[tuple[str, int], int] = {}
        self._seen: dict[int, None] = {}
        self._own: dict[int, None] = {}
        self._polled_to: datetime | None = None
        self._written_at = self._checked_at = self._polled_at = 0.0

    def claim(self, generation: int | None = None) -> int:
        """Claim the chain and take up where the last publisher ended.

        Parameters
        ----------
        generation
            The claim; None takes the next free one, which the data directory's lock makes ours.
            A claim that failed before it was through may be made again.

        Returns
        -------
        int
            The generation under which loads are to be written.

        Raises
        ------
        StalePublisher
            If another claim is as new.
        RewindUnfinished
            If a rewind was cut short: let a ``Rewinder`` finish it first.
        CanonDamaged
            If the ledger lacks a load that the canon shows.
        HeadraceError
            One of HR-40xx.
        """
        with self._lock:
            newest = newest_generation(self._connection, self.database)
            own = generation is not None and generation == self._claiming
            self.generation = newest + 1 if generation is None else generation
            if self.generation < newest or (self.generation == newest and not own):
                raise StalePublisher(claimed=newest, database=self.database, ours=self.generation)
            self._unwritten, self._claiming = None, self.generation
            if not own:
                self._tried = -1
            facts, core, bounds = self.facts, self._streams, self.settings.canon
            canon, self._repeated = fence_off(
                self._connection,
                self.database,
                self.generation,
                self._tried,
                partial(Canon, facts, core, self._floor, self.generation, settings=bounds),
                lambda fence: self._append(Change(fence, None)),
            )
            rows = take_up(self._connection, self.database, canon)
            self._seen.update(dict.fromkeys(row.load_id for row in rows))
            self._polled_to = max((r.inserted_at for r in rows if r.inserted_at), default=None)
            self._canon = canon
            self._claiming = None
            self._publish(force=True)
        return self.generation

    def notify(self, rows: Sequence[LedgerRow]) -> None:
        """Hear of complete loads: all ledger rows of each. From any thread."""
        with self._changed:
            self._inbox.append(rows)
        self._wake.set()

    def apply_fork(self, update: ForkUpdate) -> None:
        """Hear of a fork state, in order; the first is a whole snapshot. From any thread."""
        with self._changed:
            self._inbox.append(update)
        self._wake.set()

    def expect_own(self, load_id: int) -> None:
        """A load that this process writes and brings in by `change`: not to be found by a poll."""
        with self._lock:
            self._own[load_id] = None
            while len(self._own) > SEEN_MAX:
                del self._own[next(iter(self._own))]

    def lower_floor(self, floor: int) -> None:
        """Show blocks from `floor` on, once they are complete. From any thread."""
        self.change(lambda canon: canon.lower_floor(floor))

    def change(self, act: Callable[[Canon], T]) -> T:
        """Run something on the state machine and write what follows from it. From any thread."""
        with self._lock:
            assert self._canon is not None, "claim first"
            result = act(self._canon)
            self._publish(force=True)
        return result

    def check_claim(self) -> None:
        """Raise if a later claim has written. From any thread.

        Raises
        ------
        StalePublisher
        """
        newest = int(self._connection.value(f"SELECT max(generation) FROM {self.database}.canon"))
        if newest > self.generation:
            raise self.supersede(newest)

    def supersede(self, claimed: int) -> StalePublisher:
        """Write nothing any more: a later claim is known. The error to end with."""
        names = {"claimed": claimed, "database": self.database, "ours": self.generation}
        self._superseded = StalePublisher(**names)
        return self._superseded

    def visible(self) -> CanonRow | None:
        """The newest canon row that was written."""
        return self._shown

    def wait_for_height(self, number: int, timeout_seconds: float) -> CanonRow:
        """Wait until block `number` is visible.

        Raises
        ------
        HeightNotReached
            If it is not in time.
        HeadraceError
            What made the publisher fail.
        """
        until = time.monotonic() + timeout_seconds
        with self._changed:
            while self._shown is None or self._shown.head.number < number:
                if self.failure is not None:
                    raise self.failure
                left = until - time.monotonic()
                if left <= 0:
                    head = self._shown.head.number if self._shown else "none"
                    raise HeightNotReached(to_block=number, seconds=timeout_seconds, head=head)
                self._changed.wait(left)
            return self._shown

    def start(self) -> None:
        """Work in a thread of its own until `stop`; a failure stands in `failure`."""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Write what is due, if not superseded, and end; False when it takes over `seconds`."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def run_once(self) -> float:
        """Take what came in, write what is due.

        Returns
        -------
        float
            Seconds until there is something to do again, unless something comes in before.

        Raises
        ------
        StalePublisher, CoreLoadMissing
        HeadraceError
            One of HR-40xx.
        """
        with self._lock:
            assert self._canon is not None, "claim first"
            self._take_inbox(self._canon)
            now = self._clock()
            poll = self.settings.poll_seconds
            if poll is not None and abs(now - self._polled_at) >= poll:
                self._polled_at = now
                self._poll(self._canon)
            if abs(now - self._checked_at) >= self.settings.check_seconds:
                self._checked_at = now
                self._check(self._canon)
            wait = self._publish(force=False)
        return min(wait, self.settings.check_seconds, poll or self.settings.check_seconds)

    def _run(self) -> None:
        answered = time.monotonic()
        while True:
            self._wake.clear()
            try:
                wait = self.run_once()
                if self._stopping.is_set():
                    with self._lock:
                        self._publish(force=True)
                    return
                answered = time.monotonic()
            except BaseException as error:  # noqa: BLE001 - a dead thread must be seen
                patient = time.monotonic() - answered < self.settings.retry_seconds
                if not (isinstance(error, Transient) and patient) or self._stopping.is_set():
                    with self._changed:
                        self.failure = error
                        self._changed.notify_all()
                    return
                wait = 0.2
            self._wake.wait(wait)

    def _take_inbox(self, canon: Canon) -> None:
        with self._changed:
            inbox, self._inbox = self._inbox, []
        for came in inbox:
            if isinstance(came, ForkUpdate):
                self.strays += not canon.apply_fork(came, self._now_ms())
            else:
                new = [row for row in came if row.load_id not in self._seen]
                self._seen.update(dict.fromkeys(row.load_id for row in new))
                while len(self._seen) > SEEN_MAX:
                    del self._seen[next(iter(self._seen))]
                canon.add(new)

    def _poll(self, canon: Canon) -> None:
        """Take the loads that others wrote."""
        overlap = timedelta(seconds=self.settings.poll_overlap_seconds)
        since = self._polled_to - overlap if self._polled_to else None
        recent = recent_loads(self._connection, self.database, since)
        new = [load_id for load_id in recent if load_id not in self._seen]
        for at in range(0, len(new), POLLED_MAX):
            part = new[at : at + POLLED_MAX]
            rows = read_ledger(self._connection, self.database, since=since, loads=part)
            canon.add([row for row in rows if row.load_id not in self._own])
            self._seen.update(dict.fromkeys(part))
        if recent:
            self._polled_to = max(recent.values())
            # Whatever is older than the overlap is never read again.
            self._seen = dict.fromkeys(recent)

    def _check(self, canon: Canon) -> None:
        """Look for a later claim and for segments that do not come."""
        self.check_claim()
        forget_untold(self._connection, self.database, self._repeated, self.generation)
        gap = canon.fork_gap()
        if gap is not None:
            canon.close_fork_gap(read_ancestors(self._connection, self.database, *gap))
        for missing in canon.take_missing(self._now_ms()):
            key = (missing.stream, missing.from_block)
            attempts = self._asked[key] = self._asked.get(key, 0) + 1
            most = self.settings.missing_attempts_max
            if most is not None and attempts > most:
                segment = f"{missing.from_block}-{missing.to_block}"
                raise CoreLoadMissing(segment=segment, stream=missing.stream, attempts=attempts - 1)
            self._on_missing(missing)

    def _publish(self, *, force: bool) -> float:
        """Write the canon row that is due; the seconds until one may be."""
        if self._superseded is not None:
            raise self._superseded
        canon, now = self._canon, self._clock()
        assert canon is not None
        wait = self._written_at + self.settings.coalesce_seconds - now
        # More than that is left only where the clock was set back.
        if 0 < wait <= self.settings.coalesce_seconds and not force:
            return wait
        if self._unwritten is not None:
            self._append(self._unwritten, again=True)
        self.doubt = settle_doubts(self._connection, self.database, canon)
        change = canon.step(self._now_ms())
        if change is not None:
            self._append(change)
            visible = change.row.head.number
            self._asked = {key: n for key, n in self._asked.items() if key[1] > visible}
        return self.settings.check_seconds

    def _append(self, change: Change, *, again: bool = False) -> None:
        """Write a row, again and again while ClickHouse does not answer.

        The state machine has moved on: a row that fails is kept, and comes before the next one.
        """
        self._unwritten, self._tried = change, change.row.seq
        until = time.monotonic() + self.settings.retry_seconds
        pause = 0.05
        while True:
            at = datetime.fromtimestamp(self._clock(), UTC)
            try:
                if change.reorg is not None and not (
                    again and has_reorg(self._connection, self.database, change.row)
                ):
                    read_below = partial(read_ancestors, self._connection, self.database)
                    reorg = tell_joined(change.reorg, read_below)
                    append_reorg(self._connection, self.database, change.row, reorg, at)
                append_canon(self._connection, self.database, change.row, at)
                break
            except Transient:
                if time.monotonic() >= until or self._stopping.wait(pause):
                    raise
                pause, again = min(2 * pause, 2.0), True
        self._unwritten = None
        self._written_at = self._clock()
        with self._changed:
            self._shown = change.row
            self._changed.notify_all()
        self._on_row(change)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
