"""Health of endpoints and processes in, what the display shows of them out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from infra.progress import ProviderProgress, ProviderState
from ingest.endpoint import EndpointHealth

SLOW_SECONDS = 3.0
"""A smoothed answer time above this is called slow."""


def provider_progress(health: EndpointHealth) -> ProviderProgress:
    """The endpoint's line on the display."""
    state: ProviderState = "ok"
    note = ""
    if health.quarantined is not None:
        state = "quarantined"
        note = f"{health.quarantined.code}: {health.quarantined.reason}"
    elif health.paused_seconds > 0:
        state = "limited" if health.calls_per_second is not None else "failing"
        note = health.last_error
    elif health.latency_seconds is not None and health.latency_seconds > SLOW_SECONDS:
        state, note = "slow", f"{health.latency_seconds:.1f} s an answer"
    return ProviderProgress(
        name=health.name,
        state=state,
        calls=health.answers,
        errors=health.errors,
        head=health.head,
        head_age_seconds=health.head_age_seconds,
        note=note,
    )


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of some processes; 0 of those that are gone, and where there is no /proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        except (OSError, IndexError, ValueError):
            continue
    return total
