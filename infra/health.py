"""An endpoint's health in, what the display shows of it out."""

from __future__ import annotations

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
        note=note,
    )
