"""How long a test waits for what must come: a bound, and no part of what is tested."""

from __future__ import annotations

PATIENCE_SECONDS = 600.0
"""Waits end with what is waited for, however slow the machine is. This bounds those for what never
comes, so that a test says what that was before the limit of `pyproject.toml` ends it."""
