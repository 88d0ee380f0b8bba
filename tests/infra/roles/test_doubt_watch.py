"""A publisher that waits for rows which are lost says so; one that does not is silent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from infra.roles.doubt_watch import SAY_SECONDS, DoubtWatch
from infra.roles.publish import PublishRole
from infra.roles.role_run import RoleRun
from infra.settings import Settings
from schemas.segments import BlockRef

DOUBT = (BlockRef(29, bytes(32)), 22)
OTHER = (BlockRef(39, bytes(32)), 31)


def said(*looks: tuple[tuple[BlockRef, int] | None, float]) -> list[int]:
    """Since how many seconds, as often as it was said."""
    watch = DoubtWatch()
    with capture_logs() as lines:
        for doubt, now in looks:
            watch.look(doubt, now)
    assert {line["event"] for line in lines} <= {"shown_blocks_in_doubt"}
    return [line["since_seconds"] for line in lines]


def test_a_doubt_that_lasts_is_said_once_a_minute() -> None:
    assert said((DOUBT, 5.0), (DOUBT, 64.9), (DOUBT, 65.0), (DOUBT, 66.0)) == [60]
    assert said(*((DOUBT, float(second)) for second in range(185))) == [60, 120, 180]


def test_doubts_that_are_settled_in_time_are_not_said() -> None:
    assert said((DOUBT, 0.0), (None, 50.0), (DOUBT, 55.0), (DOUBT, 100.0)) == []
    assert said((DOUBT, 0.0), (OTHER, 50.0), (DOUBT, 100.0), (DOUBT, 150.0)) == []


def test_the_role_says_it_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("infra.roles.publish.time.monotonic", lambda: now[0])
    settings = Settings(chain="ethereum")
    role = PublishRole(RoleRun("publish", settings), settings)
    publisher = SimpleNamespace(failure=None, doubt=DOUBT, generation=1, visible=lambda: None)
    parts: list[Any] = [
        SimpleNamespace(),
        SimpleNamespace(poll=lambda _seconds: []),
        SimpleNamespace(superseded_by=lambda _generation: None),
        publisher,
        SimpleNamespace(failure=None),
        SimpleNamespace(take=lambda _head: []),
    ]
    with capture_logs() as lines:
        role._turn(*parts)
        now[0] += SAY_SECONDS
        role._turn(*parts)
    (line,) = lines
    assert (line["event"], line["code"]) == ("shown_blocks_in_doubt", "HR-4511")
    assert "`headrace replay --from 23 --to 29`" in line["fix"]
