"""A consumer that its group put out in, how its run ends out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors_roles import InstanceTaken
from sinks.consumer import LaneConsumer

FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID)


class Group:
    """A client without messages, which hears at its second poll that it is no member any more."""

    def __init__(self) -> None:
        self.polls, self.closed = 0, False

    def subscribe(self, *_: object, **__: object) -> None: ...

    def poll(self, _seconds: float) -> object:
        self.polls += 1
        return SimpleNamespace(error=lambda: FENCED) if self.polls == 2 else None

    def unsubscribe(self) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    def assignment(self) -> list[object]:
        return []

    def close(self) -> None:
        self.closed = True


class Loader:
    """Between two of its writes the client is polled."""

    def write(self, *, between: Any, **_: object) -> None:
        between()


def run(group: Group, turns: int) -> None:
    """Run a consumer that is told to stop after some turns."""
    asked = 0
    any_: Any = SimpleNamespace

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > turns

    def nothing(*_: object, **__: object) -> None: ...

    LaneConsumer(
        group,
        "group",
        {},
        any_(),
        any_(load=nothing),
        lambda *_: Loader(),  # type: ignore[arg-type]
        dead_letter=nothing,
        fetch=nothing,  # type: ignore[arg-type]
        lost=nothing,  # type: ignore[arg-type]
        check_contact=nothing,
        watch=any_(turn=nothing, ready=nothing, lag=nothing),
    ).run(stopping)


def test_a_member_that_is_put_out_before_it_is_to_end_fails() -> None:
    group = Group()
    with pytest.raises(InstanceTaken):
        run(group, turns=2)
    assert group.closed


@pytest.mark.parametrize("turns", [0, 1], ids=["while it drains", "in its last turn"])
def test_a_member_that_is_put_out_while_it_ends_has_ended(turns: int) -> None:
    """Whoever has its partitions reads again what it did not commit."""
    group = Group()
    group.polls = 1 - turns
    run(group, turns)
    assert group.polls >= 2
    assert group.closed
