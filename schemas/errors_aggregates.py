"""Failures about aggregates (HR-66xx)."""

from __future__ import annotations

from schemas.errors import Permanent


class AggregatesMissing(Permanent):
    """A database shows blocks that have no aggregates."""

    code = "HR-6601"
    what = "{database} shows blocks whose events were never aggregated"
    why = "a version of Headrace stored them that had no aggregates yet"
    fix = "index the chain again into a new data directory or database; the old one stays readable"
