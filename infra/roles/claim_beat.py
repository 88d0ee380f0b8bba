"""A publisher's word that it lives in, said in time whatever else the publisher waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sinks.claims import BEAT_SECONDS


class ClaimBeat:
    """Says at intervals that a publisher lives, in a thread of its own, while the context lasts.

    Nothing that a publisher does may keep it from that for as long as its claim may be silent: not
    the ledger that it takes up after the claim, not a server that answers slowly. Two that took
    the chain from each other for such a silence would go on with it for ever.

    Parameters
    ----------
    say
        Says it.
    seconds
        The interval.
    """

    def __init__(self, say: Callable[[], None], seconds: float = BEAT_SECONDS) -> None:
        self.failure: BaseException | None = None
        """Why it could not be said."""
        self._say, self._seconds = say, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claim-beat", daemon=True)

    def __enter__(self) -> ClaimBeat:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._seconds):
                self._say()
        except BaseException as error:  # noqa: BLE001 - a dead thread must end the role
            self.failure = error
