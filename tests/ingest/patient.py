"""Limits that no pause of the machine reaches: what a test sees is what it brought about."""

from __future__ import annotations

from ingest.limits import IngestLimits

PATIENT = IngestLimits(
    request_timeout_seconds=3600.0,
    connect_timeout_seconds=3600.0,
    hedge_after_seconds=3600.0,
    head_repeat_seconds=3600.0,
)
"""No request is given up or asked twice for its time; tests of that name a short one."""
