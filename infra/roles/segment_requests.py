"""Request that lost segments are ingested again, once nothing on its way can bring them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from infra.roles.in_flight import InFlight
from schemas.errors_roles import SegmentNotBrought
from schemas.segments import SegmentWanted
from sinks.canon_row import Missing, streams_by_range

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 5
"""How often one segment is asked for before the publisher halts."""


@dataclass(frozen=True, slots=True)
class LostRange:
    """Consecutive lost segments, or head blocks, of the same streams: one request."""

    starts: tuple[int, ...]
    """First block of each."""
    to_block: int
    """Last block of the last."""
    last_hash: bytes | None
    """Its hash, where it is known."""
    streams: tuple[str, ...]
    """The streams that have no load of them."""

    @property
    def from_block(self) -> int:
        """First block of the first."""
        return self.starts[0]


def lost_ranges(lost: Iterable[Missing]) -> list[LostRange]:
    """Join what is lost: all streams of a segment, and head blocks that follow one another.

    Whole segments stay apart: an ingester takes them from history, each as one fetch.
    """
    found: list[LostRange] = []
    for (first, last, last_hash), streams in streams_by_range(lost).items():
        before = found[-1] if found else None
        single = first == last and last_hash is not None
        if (
            single
            and before is not None
            and (before.streams, before.to_block) == (streams, first - 1)
            and len(before.starts) == before.to_block - before.from_block + 1
        ):
            found[-1] = LostRange((*before.starts, first), last, last_hash, streams)
        else:
            found.append(LostRange((first,), last, last_hash, streams))
    return found


def aside(ask: Callable[[], None]) -> None:
    """Run a question in a thread of its own."""
    threading.Thread(target=ask, name="in-flight", daemon=True).start()


class SegmentRequests:
    """Asks for each segment that is lost, once it is known not to be on its way.

    Brokers may take their time to say what is on its way, and whoever calls `take` has to say
    meanwhile that it lives: so they are asked aside, and the answer is taken by a later call.

    Parameters
    ----------
    chain_id
        The chain.
    asker
        What the ids of these requests begin with.
    in_flight
        Knows what is on its way.
    start
        Has a question asked, one at a time.
    """

    def __init__(
        self,
        chain_id: int,
        asker: str,
        in_flight: InFlight,
        start: Callable[[Callable[[], None]], None] = aside,
    ) -> None:
        self._chain_id, self._asker, self._in_flight = chain_id, asker, in_flight
        self._start = start
        self._lock = threading.Lock()
        self._new: list[Missing] = []
        self._lost: list[Missing] = []
        self._failure: BaseException | None = None
        self._answered = threading.Event()
        self._answered.set()
        self._count = 0
        self._asked: dict[tuple[str, int], int] = {}

    def want(self, missing: Missing) -> None:
        """A segment is missed; from the publisher's thread."""
        with self._lock:
            self._new.append(missing)

    def take(self, visible_head: int) -> list[SegmentWanted]:
        """The requests that are due; never waits.

        Raises
        ------
        SegmentNotBrought
            If one was asked for too often.
        """
        if not self._answered.is_set():
            return []
        due = self._due(visible_head)
        with self._lock:
            new, self._new = self._new, []
        for missing in new:
            self._in_flight.add(missing)
        self._in_flight.forget_up_to(visible_head)
        self._asked = {key: n for key, n in self._asked.items() if key[1] > visible_head}
        if self._in_flight.following:
            self._answered.clear()
            self._start(self._ask)
        return due + self._due(visible_head)

    def _due(self, visible_head: int) -> list[SegmentWanted]:
        """The requests for what an answer said is lost, each once."""
        if not self._answered.is_set():
            return []
        if self._failure is not None:
            raise self._failure
        lost, self._lost = self._lost, []
        ranges = lost_ranges(missing for missing in lost if missing.to_block > visible_head)
        return [self._request(one) for one in ranges]

    def _ask(self) -> None:
        try:
            self._lost += self._in_flight.take_lost()
        except BaseException as error:  # noqa: BLE001 - whoever takes the answer is told
            self._failure = error
        finally:
            self._answered.set()

    def _request(self, lost: LostRange) -> SegmentWanted:
        names = ", ".join(lost.streams)
        attempts = self._count_attempt(lost)
        if attempts > 1:
            late = SegmentNotBrought(
                segment=f"{lost.from_block}-{lost.to_block}",
                stream=names,
                attempts=attempts - 1,
                from_block=lost.from_block,
                to_block=lost.to_block,
            )
            if attempts > ATTEMPTS_MAX:
                raise late
            log.warning(
                "segment_still_wanted", code=late.code, what=late.what_text, fix=late.fix_text
            )
        self._count += 1
        log.warning(
            "segment_wanted",
            from_block=lost.from_block,
            to_block=lost.to_block,
            streams=list(lost.streams),
        )
        return SegmentWanted(
            chain_id=self._chain_id,
            from_block=lost.from_block,
            to_block=lost.to_block,
            last_hash=lost.last_hash,
            streams=lost.streams,  # type: ignore[arg-type]
            request_id=f"{self._asker}.{self._count}",
            reason=f"the publisher has no load of {names}",
            requested_at_ms=int(time.time() * 1000),
        )

    def _count_attempt(self, lost: LostRange) -> int:
        """Count a request for each block of a range; the highest count."""
        attempts = 0
        for stream in lost.streams:
            for first in lost.starts:
                self._asked[stream, first] = self._asked.get((stream, first), 0) + 1
                attempts = max(attempts, self._asked[stream, first])
        return attempts
