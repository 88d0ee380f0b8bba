"""Of several test processes one at a time runs a cluster: blocks come in as fast as in none."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _one_cluster_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Six processes and a chain that is mined by the clock: two of them are more than two cores.

    The wait is no part of a test's time limit, which is `func_only`.
    """
    with (tmp_path_factory.getbasetemp().parent / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
