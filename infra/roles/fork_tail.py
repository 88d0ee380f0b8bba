"""The topic `forks` in, a chain's fork updates out: the last whole snapshot, then what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from infra.roles.topic_reader import Read, TopicReader
from infra.settings_cluster import KafkaSettings
from schemas.codec import UnknownMessage, decode_fork_update
from schemas.segments import FORKS, ForkUpdate

log = structlog.get_logger(__name__)

SNAPSHOT = "snapshot"
"""Header of an update that holds the whole fork."""
LOOK_BACK = (256, 8_192)
"""How many messages are looked through for a snapshot before the whole topic is."""


class ForkTail:
    """Follows one chain in the topic `forks`; for one thread.

    Parameters
    ----------
    kafka
        The settings.
    chain_id
        The chain.
    apply
        Takes each update, in order; the first is a whole snapshot where there is one.
    refuse
        Takes a message that is no fork update.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        chain_id: int,
        apply: Callable[[ForkUpdate], None],
        refuse: Callable[[Read, UnknownMessage], None],
    ) -> None:
        self._reader = TopicReader(kafka, FORKS)
        self._key = str(chain_id).encode()
        self._chain_id, self._apply, self._refuse = chain_id, apply, refuse

    def begin(self) -> None:
        """Apply the last snapshot and what follows it.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        low, high = self._reader.bounds()
        found: list[Read] = []
        for start in [*(max(low, high - count) for count in LOOK_BACK), low]:
            found = [one for one in self._reader.read(0, start, high) if self._ours(one)]
            snapshots = [at for at, one in enumerate(found) if SNAPSHOT in one.envelope.headers]
            if snapshots:
                found = found[snapshots[-1] :]
                break
            if start == low:
                break
        log.info("forks_taken_up", updates=len(found), offset=found[0].offset if found else high)
        self._take(found)
        self._reader.seek(high)

    def poll(self, seconds: float) -> None:
        """Apply what has come, after `seconds` at most.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        self._take(one for one in self._reader.poll(seconds) if self._ours(one))

    def close(self) -> None:
        """Leave the brokers."""
        self._reader.close()

    def _ours(self, read: Read) -> bool:
        return read.envelope.key == self._key

    def _take(self, found: Iterable[Read]) -> None:
        for one in found:
            try:
                update = decode_fork_update(one.envelope.value)
            except UnknownMessage as error:
                self._refuse(one, error)
                continue
            if update.chain_id == self._chain_id:
                self._apply(update)
