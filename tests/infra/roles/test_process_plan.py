"""Settings in, what a worker is to do out; and how quiet its libraries are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from infra.roles.process import faust_conf, make_plan
from infra.roles.process_logs import LOGGERS, QuietHandler, quiet_logs
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from processors.abi import build_layouts
from processors.agent_plan import SHAPE
from processors.steps import build_steps
from schemas.codec import UnknownMessage
from schemas.errors_process import OffsetsLost, OneLaneEach
from schemas.segments import DATA_TOPICS
from schemas.topics import FORK_STATE


def settings(**roles: Any) -> Settings:
    return Settings(roles=roles, kafka={"topic_prefix": "x."})


def test_each_lane_has_its_agents() -> None:
    history = make_plan(settings(lanes=["history"]))
    head = make_plan(settings(lanes=["head"]))

    assert [step.agent for step in history.steps] == ["decode", "aggregate"]
    assert [step.agent for step in head.steps] == ["decode", "aggregate"]
    assert (history.reorg, head.reorg) == (False, True)
    assert head.fetching.bytes_min == 1 < history.fetching.bytes_min
    assert (history.app_id, head.app_id) == ("x.process.history", "x.process.head")


def test_only_the_agents_that_were_named() -> None:
    assert [s.agent for s in make_plan(settings(lanes=["head"], agents=["decode"])).steps] == [
        "decode"
    ]
    plan = make_plan(settings(lanes=["head"], agents=["reorg"]), rebuild_forks=True)
    assert (plan.steps, plan.reorg, plan.rebuild_forks) == ((), True, True)


@pytest.mark.parametrize(
    "roles", [{}, {"lanes": ["history", "head"]}, {"lanes": ["history"], "agents": ["reorg"]}]
)
def test_what_no_worker_can_do_is_refused(roles: dict[str, Any]) -> None:
    with pytest.raises(OneLaneEach, match="HR-6201"):
        make_plan(settings(**roles))


def test_the_changelog_is_the_topic_that_is_declared() -> None:
    plan = make_plan(settings(lanes=["head"]))

    assert f"{plan.app_id}-fork_state-changelog" == f"x.{FORK_STATE}"


def test_every_derived_stream_is_a_stream() -> None:
    for step in build_steps(build_layouts()):
        assert {step.takes, step.gives} <= set(DATA_TOPICS)
        with pytest.raises(UnknownMessage, match="HR-3901"):
            step.derive(b"not a message")


def test_what_the_guarantees_rest_on_is_not_for_settings() -> None:
    conf = faust_conf(KafkaSettings(session_timeout_seconds=90, instance="w-1"), "g")

    assert not conf.keys() & SHAPE.keys()
    assert conf["consumer_group_instance_id"] == "g.w-1.4"
    assert conf["broker_request_timeout"] > conf["broker_session_timeout"]
    assert SHAPE["processing_guarantee"] == "at_least_once"
    assert SHAPE["stream_wait_empty"] is True


@pytest.fixture
def _loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    kept = [(one.handlers[:], one.propagate) for one in loggers]
    hook = threading.excepthook
    yield
    threading.excepthook = hook
    for one, (handlers, propagate) in zip(loggers, kept, strict=True):
        one.handlers[:], one.propagate = handlers, propagate


@pytest.mark.usefixtures("_loggers")
def test_libraries_say_a_thing_once_and_without_a_traceback() -> None:
    quiet_logs()
    faust = logging.getLogger("faust.transport.consumer")
    with capture_logs() as said:
        faust.info("not shown")
        for _ in range(3):
            faust.warning("the broker %s left", "b")
        try:
            raise ValueError("inner")
        except ValueError:
            faust.exception("Crashed reason=%r", 1)
        try:
            raise OffsetsLost(topic="t", partition=0, first=1, last=2)
        except OffsetsLost:
            faust.exception("Crashed, said by its code")
        faust.warning("Topic creation disabled! Can't create topic x")

    assert [(one["log_level"], one["text"]) for one in said] == [
        ("warning", "the broker b left"),
        ("error", "Crashed reason=1"),
    ]
    assert said[1]["error"] == "ValueError: inner"


def test_a_thing_is_said_again_after_a_while() -> None:
    now = [0.0]
    handler = QuietHandler(clock=lambda: now[0])
    record = logging.LogRecord("faust", logging.ERROR, "f", 1, "no table", (), None)
    with capture_logs() as said:
        for seconds in (0.0, 10.0, 31.0):
            now[0] = seconds
            handler.emit(record)

    assert len(said) == 2


def test_a_topic_that_faust_passes_over_ends_the_worker() -> None:
    handler, of_another_worker = QuietHandler(), QuietHandler()
    said = "Ignoring missing topic: 'x.raw.heads'"
    record = logging.LogRecord("faust.assignor", logging.WARNING, "f", 1, said, (), None)
    handler.emit(record)
    assert handler.passed_over.is_set()
    assert not of_another_worker.passed_over.is_set()
