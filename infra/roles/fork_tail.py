"""The topic `forks` in, a chain's fork updates out: the last whole snapshot, then what follows.

Words of a worker that has lost the chain and does not know are left out (`infra.roles.fork_fence`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog

from infra.roles.fork_fence import ForkFence, is_snapshot
from infra.roles.topic_reader import Read, TopicReader
from infra.settings_cluster import KafkaSettings
from schemas.codec import UnknownMessage, decode_fork_update
from schemas.segments import FORKS, BlockRef, ForkUpdate
from sinks.fork_view import ForkView

log = structlog.get_logger(__name__)

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
    stopping
        See `TopicReader`.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        chain_id: int,
        apply: Callable[[ForkUpdate], None],
        refuse: Callable[[Read, UnknownMessage], None],
        stopping: threading.Event | None = None,
    ) -> None:
        self._reader = TopicReader(kafka, FORKS, stopping=stopping)
        self._fence = ForkFence()
        self._key = str(chain_id).encode()
        self._chain_id, self._apply, self._refuse = chain_id, apply, refuse

    def begin(self) -> None:
        """Apply the last snapshot with what follows it, as one: its parts are of the past.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        low, high = self._reader.bounds()
        found: list[Read] = []
        for start in [*(max(low, high - count) for count in LOOK_BACK), low]:
            self._fence = ForkFence()
            found = list(self._followed(self._reader.read(0, start, high)))
            snapshots = [at for at, one in enumerate(found) if is_snapshot(one)]
            if snapshots:
                found = found[snapshots[-1] :]
                break
            if start == low:
                break
        log.info("forks_taken_up", updates=len(found), offset=found[0].offset if found else high)
        for update in whole_of(list(self._decoded(found))):
            self._apply(update)
        self._reader.seek(high)

    def poll(self, seconds: float) -> None:
        """Apply what has come, after `seconds` at most.

        Raises
        ------
        HeadraceError
            One of HR-60xx.
        """
        self._take(self._followed(self._reader.poll(seconds)))

    def close(self) -> None:
        """Leave the brokers."""
        self._reader.close()

    def _followed(self, read: Iterable[Read]) -> Iterator[Read]:
        for one in read:
            if one.envelope.key == self._key:
                yield from self._fence.take(one)

    def _take(self, found: Iterable[Read]) -> None:
        for update in self._decoded(found):
            self._apply(update)

    def _decoded(self, found: Iterable[Read]) -> Iterator[ForkUpdate]:
        for one in found:
            try:
                update = decode_fork_update(one.envelope.value)
            except UnknownMessage as error:
                self._refuse(one, error)
                continue
            if update.chain_id == self._chain_id:
                yield update


def whole_of(updates: Sequence[ForkUpdate]) -> Sequence[ForkUpdate]:
    """The state that a snapshot and its followers come to, as one snapshot.

    As they are where no snapshot is among them, or one is not whole.
    """
    view = ForkView()
    for update in updates:
        view.apply(update)
    head, final = view.head, view.finalized
    if head is None or final is None or view.hash_at(final.number) != final.hash:
        return updates
    chain = tuple(
        BlockRef(number, view.hashes[number]) for number in range(final.number, head.number + 1)
    )
    last = updates[-1]
    return [ForkUpdate(last.chain_id, head, view.safe, final, (), chain, last.observed_at_ms)]
