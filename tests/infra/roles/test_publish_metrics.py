"""What a scrape of the publisher says while the head moves, and while it stands still."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from infra.roles.publish_metrics import PublishMetrics
from schemas.segments import BlockRef, ForkUpdate
from sinks.canon import Change
from sinks.canon_row import CanonRow


class Registered:
    """The part of a role that hands out metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, name, labels, registry=self.registry)

    def counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, name, labels, registry=self.registry)

    def histogram(self, name: str, *labels: str) -> Histogram:
        return Histogram(name, name, labels, registry=self.registry)


def ref(number: int) -> BlockRef:
    return BlockRef(number, number.to_bytes(32, "big"))


def update(number: int, observed_at_ms: int) -> ForkUpdate:
    fields: dict[str, Any] = dict.fromkeys(ForkUpdate.__slots__)
    return ForkUpdate(**fields | {"head": ref(number), "observed_at_ms": observed_at_ms})


def shown(number: int) -> Change:
    row = CanonRow(1, 1, 0, ref(number), None, None, (), ())
    fields: dict[str, Any] = dict.fromkeys(Change.__slots__)
    return Change(**fields | {"row": row, "reorg": None})


@pytest.fixture
def metrics() -> tuple[PublishMetrics, Any, list[float]]:
    run: Any = Registered()
    now = [1_000.0]
    return PublishMetrics(run, lambda: now[0]), run.registry.get_sample_value, now


def test_lag_rises_while_nothing_is_shown(metrics: Any) -> None:
    publisher, value, _ = metrics
    publisher.on_fork(update(100, 1_000_000))
    publisher.on_row(shown(100))
    assert value("headrace_head_lag_blocks") == 0
    for number in range(101, 156):
        publisher.on_fork(update(number, 1_000_000))
    assert value("headrace_head_lag_blocks") == 55
    publisher.on_row(shown(155))
    assert value("headrace_head_lag_blocks") == 0


def test_age_rises_while_nobody_tells_of_a_head(metrics: Any) -> None:
    publisher, value, now = metrics
    publisher.on_fork(update(100, 998_000))
    publisher.on_row(shown(100))
    assert value("headrace_head_age_seconds") == 2
    now[0] += 600
    assert value("headrace_head_age_seconds") == 602
    assert value("headrace_head_lag_blocks") == 0
    publisher.on_row(shown(100))
    assert value("headrace_head_age_seconds") == 602, "a row that shows the same head is no news"


def test_a_standby_has_no_age(metrics: Any) -> None:
    publisher, value, now = metrics
    publisher.on_fork(update(100, 998_000))
    now[0] += 600
    assert math.isnan(value("headrace_head_age_seconds"))
    assert value("headrace_head_lag_blocks") == 0


def test_a_backfill_is_as_old_as_its_last_step(metrics: Any) -> None:
    publisher, value, now = metrics
    now[0] += 30
    publisher.on_row(shown(9))
    now[0] += 5
    assert value("headrace_head_age_seconds") == 5
