"""A worker that its group goes on without ends; one that joins again, or hears nothing, stays."""

from __future__ import annotations

import pytest

from infra.roles.membership import ABSENT_SESSIONS_MAX, Membership
from schemas.errors_process import WorkerFailed

SESSION = 10.0
LONG = ABSENT_SESSIONS_MAX * SESSION


class Told:
    """What the brokers and the worker say, and the time."""

    def __init__(self) -> None:
        self.members: set[str] | None = {"us", "other"}
        self.name, self.now = "us", 0.0
        self.group = Membership(
            "g", SESSION, lambda: self.members, lambda: self.name, lambda: self.now
        )

    def after(self, seconds: float) -> None:
        """Ask once more, so much later."""
        self.now += seconds
        self.group.check()


def test_a_member_stays() -> None:
    told = Told()
    for _ in range(20):
        told.after(LONG)


def test_who_is_no_member_for_long_ends() -> None:
    told = Told()
    told.after(1)
    told.members = {"other"}
    told.after(1)
    told.after(LONG - 1)
    with pytest.raises(WorkerFailed, match="g was without this worker for 30 s"):
        told.after(1)


def test_who_has_no_name_is_no_member() -> None:
    told = Told()
    told.name = ""
    told.after(1)
    with pytest.raises(WorkerFailed):
        told.after(LONG)


@pytest.mark.parametrize("members", [None, {"us again"}])
def test_silent_brokers_and_a_new_name_begin_anew(members: set[str] | None) -> None:
    told = Told()
    told.members = set()
    told.after(1)
    told.after(LONG - 1)
    told.members, told.name = members, "us again"
    told.after(1)
    told.members = set()
    told.after(1)
    told.after(LONG - 1)
    with pytest.raises(WorkerFailed):
        told.after(1)
