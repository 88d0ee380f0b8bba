"""Of several test processes one at a time runs a cluster: blocks come in as fast as in none."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _one_cluster_at_a_time(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Six processes and a chain that is mined by the clock: two of them are more than two cores.

    The wait for the others is no part of a test's time limit: limits are ``func_only`` here, which
    begin after the fixtures; a test with any other limit is refused.
    """
    limit = request.node.get_closest_marker("timeout")
    assert limit is not None, "a cluster's test has a limit of its own"
    assert limit.kwargs.get("func_only"), "its limit is func_only: it may wait for the lock"
    with (tmp_path_factory.getbasetemp().parent / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
