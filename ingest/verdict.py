"""What a verification proved of a segment, as a value that travels with it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.tables import Verification


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was proven of a segment against its blocks' hashes, and what was not."""

    level: Verification
    """The level that every block of the segment reached."""
    proven: tuple[str, ...]
    """What was proven, in words: ``header hash``, ``receiptsRoot``, …"""
    unproven: tuple[str, ...]
    """What could not be proven, in words, with the reason where there is one."""
