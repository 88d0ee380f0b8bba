"""Fixtures for every test: real chain data, a real ClickHouse, Kafka and anvil."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from infra.roles.process_logs import LOGGERS

pytest_plugins = ["tests.anvil_fixture", "tests.clickhouse_fixture", "tests.kafka_rig"]

REPOSITORY = Path(__file__).parent.parent
CLUSTERS = REPOSITORY / "tests" / "cluster"
FOR_TESTS = (
    "HEADRACE_CHAINDATA",
    "HEADRACE_REQUIRE_ANVIL",
    "HEADRACE_REQUIRE_HELM",
    "HEADRACE_REQUIRE_KAFKA",
)
PROCESS_BYTES = 2 * 1024**3
"""What one of several test processes may need: a broker, two ClickHouse servers, every role."""
PROCESSES_MAX = 8

# A slow machine is no failure: no deadlines, and no limit to how long examples take to be drawn.
# A failing example prints how to repeat it.
settings.register_profile(
    "headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("headrace")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core, as far as the memory goes: a test waits most of its time for what it started.

    Without xdist (``-p no:xdist``) nobody asks.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(2 * (os.cpu_count() or 1), memory // PROCESS_BYTES, PROCESSES_MAX))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters come first: they take longest, and only one runs at a time."""
    items.sort(key=lambda item: CLUSTERS not in item.path.parents)


@pytest.fixture(scope="session")
def chaindata() -> Path:
    """The folder of real blocks; no file of it is part of this repository."""
    named = os.environ.get("HEADRACE_CHAINDATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "chaindata"
    if not (folder / "blocks").is_dir():
        pytest.skip(f"no real blocks in {folder}: set HEADRACE_CHAINDATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own HEADRACE_* variables must not change what tests see."""
    for name in os.environ:
        if name.startswith("HEADRACE_") and name not in FOR_TESTS:
            monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture(autouse=True)
def _logs_of_its_own() -> Iterator[None]:
    """What a test, or a command that it calls, makes of the process's logs ends with it."""
    hook, kept = threading.excepthook, [logging.getLogger(name) for name in LOGGERS]
    states = [(logger, logger.handlers[:], logger.propagate) for logger in kept]
    yield
    structlog.reset_defaults()
    threading.excepthook = hook
    for logger, handlers, propagates in states:
        logger.handlers[:], logger.propagate = handlers, propagates
