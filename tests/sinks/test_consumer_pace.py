"""A consumer whose messages come by a clock in, when its loop writes what waits out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from schemas.segments import Envelope
from sinks.consumer import LaneConsumer

TOPIC = "raw.logs.history"


class Message:
    """One of Kafka's."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def headers(self) -> list[tuple[str, bytes]]:
        return []

    def key(self) -> bytes:
        return b""

    value = key


class Broker:
    """Messages at some seconds, and a clock that a wait for one of them moves."""

    def __init__(self, *at: float) -> None:
        self.now, self._at, self._next = 0.0, at, 0

    def poll(self, seconds: float) -> Message | None:
        due = self._at[self._next] if self._next < len(self._at) else float("inf")
        if due > self.now + seconds:
            self.now += seconds
            return None
        self.now = max(self.now, due)
        self._next += 1
        return Message(self._next - 1)

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, len(self._at)


class Loader:
    """Keeps when it was told to write everything that waits; a hundred are a load but for one."""

    def __init__(self, broker: Broker, write_seconds: float = 0.0) -> None:
        self.hurried: list[float] = []
        self._broker, self._waiting, self._full = broker, 0, 0
        self._write_seconds = write_seconds

    def take(self, *_: object) -> None:
        self._waiting += 1
        self._full += self._waiting == 100

    def write(self, *, more: bool, hurry: bool, between: Any) -> None:
        if hurry and self._waiting:
            self.hurried.append(self._broker.now)
            self._waiting = 0
        if self._full:
            self._full, self._waiting = 0, 1
            self._broker.now += self._write_seconds
            between()


def lane(broker: Broker, loader: Loader) -> LaneConsumer:
    """The loop, all else left out."""
    any_: Any = SimpleNamespace
    made = LaneConsumer(
        broker,
        "group",
        {TOPIC: TOPIC},
        any_(read=lambda envelope: envelope),
        any_(load=lambda: None),
        lambda *_: loader,  # type: ignore[arg-type,return-value]
        dead_letter=lambda *_: None,
        fetch=lambda *_: Envelope(TOPIC, b"", b""),
        lost=lambda *_: AssertionError(),  # type: ignore[arg-type,return-value]
        check_contact=lambda _: None,
        watch=any_(turn=lambda: None, ready=lambda *_, **__: None, lag=lambda _: None),
        clock=lambda: broker.now,
    )
    made.offsets.assign(TOPIC, 0, 0)
    return made


def hurried(broker: Broker, loader: Loader, until: float) -> list[float]:
    """When everything that waited was written."""
    loop = lane(broker, loader)
    while broker.now < until:
        loop.turn()
    return loader.hurried


def test_the_end_of_a_flood_is_known_soon_and_that_of_a_trickle_late() -> None:
    flood = Broker(*(number / 1000 for number in range(1000)))
    (at,) = hurried(flood, Loader(flood), 5)
    assert 1.2 < at < 1.5

    trickle = Broker(*(number / 2 for number in range(10)))
    (at,) = hurried(trickle, Loader(trickle), 20)
    assert 5.4 < at < 5.8


def test_while_it_writes_nobody_is_silent() -> None:
    """A load takes a second, and a message comes a little later."""
    flood = Broker(*(number / 1000 for number in range(100)), 1.3)
    (at,) = hurried(flood, Loader(flood, write_seconds=1.0), 5)
    assert 1.5 < at < 2
