"""Core segments that a publisher misses in, requests to ingest them once more out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from infra.roles.in_flight import InFlight
from schemas.codec import encode_segment_wanted
from schemas.errors_roles import SegmentNotBrought
from schemas.segments import REQUESTS, Envelope, SegmentWanted
from sinks.canon_row import Missing

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 5
"""How often one segment is asked for before the publisher halts."""


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

    def take(self, visible_head: int) -> list[Envelope]:
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

    def _due(self, visible_head: int) -> list[Envelope]:
        """The requests for what an answer said is lost, each once."""
        if not self._answered.is_set():
            return []
        if self._failure is not None:
            raise self._failure
        lost, self._lost = self._lost, []
        return [self._request(missing) for missing in lost if missing.to_block > visible_head]

    def _ask(self) -> None:
        try:
            self._lost += self._in_flight.take_lost()
        except BaseException as error:  # noqa: BLE001 - whoever takes the answer is told
            self._failure = error
        finally:
            self._answered.set()

    def _request(self, missing: Missing) -> Envelope:
        key = (missing.stream, missing.from_block)
        attempts = self._asked[key] = self._asked.get(key, 0) + 1
        if attempts > 1:
            segment = f"{missing.from_block}-{missing.to_block}"
            late = SegmentNotBrought(segment=segment, stream=missing.stream, attempts=attempts - 1)
            if attempts > ATTEMPTS_MAX:
                raise late
            log.warning(
                "segment_still_wanted", code=late.code, what=late.what_text, fix=late.fix_text
            )
        self._count += 1
        wanted = SegmentWanted(
            chain_id=self._chain_id,
            from_block=missing.from_block,
            to_block=missing.to_block,
            last_hash=missing.last_hash,
            streams=(missing.stream,),  # type: ignore[arg-type]
            request_id=f"{self._asker}.{self._count}",
            reason=f"the publisher has no load of {missing.stream}",
            requested_at_ms=int(time.time() * 1000),
        )
        key_bytes = str(self._chain_id).encode()
        headers = {
            "chain_id": key_bytes.decode(),
            "schema": "SegmentWanted",
            "from": str(missing.from_block),
            "to": str(missing.to_block),
        }
        return Envelope(REQUESTS, key_bytes, encode_segment_wanted(wanted), headers)
