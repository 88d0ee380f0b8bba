"""A worker's group in, whether the brokers still hold the worker for a member of it out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from schemas.errors_process import WorkerFailed

ASK_SECONDS = 5.0
"""How long the brokers may take for one answer."""
ABSENT_SESSIONS_MAX = 3
"""A worker that is none of its group's members for so many session timeouts will not be again."""


class Membership:
    """Asks the brokers, from time to time, whether a worker is in its group.

    A consumer that takes itself for a member, or for one that may not join yet, reads nothing and
    says nothing, and everything else of the process lives.

    Parameters
    ----------
    group
        The group's id.
    session_seconds
        The session timeout.
    members
        Asks for the names of the group's members; None where nobody answers.
    member_id
        By what name the brokers know the worker, '' while it has none.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self,
        group: str,
        session_seconds: float,
        members: Callable[[], set[str] | None],
        member_id: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every_seconds = session_seconds / 2
        self._seconds_max = ABSENT_SESSIONS_MAX * session_seconds
        self._group, self._members, self._member_id = group, members, member_id
        self._clock = clock
        self._absent_since: float | None = None

    def check(self) -> None:
        """Ask once; it may take seconds.

        Raises
        ------
        WorkerFailed
            If the group has long been without this worker.
        """
        members, now = self._members(), self._clock()
        if members is None or self._member_id() in members:
            self._absent_since = None
            return
        if self._absent_since is None:
            self._absent_since = now
        absent = now - self._absent_since
        if absent >= self._seconds_max:
            raise WorkerFailed(detail=f"{self._group} was without this worker for {absent:.0f} s")


def members_of(admin: Any, group: str) -> set[str] | None:
    """The names of a group's members, by the brokers; None where they do not answer."""
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=ASK_SECONDS)
        return {member.member_id for member in asked[group].result().members}
    except KafkaException as error:
        return set() if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND else None
