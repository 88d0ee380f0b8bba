"""What a publisher has in doubt in, a warning out while it lasts; the caller tells the time.

Which of the shown blocks left while nobody followed the chain is read from stored rows, at once
(`sinks.fork_gap`). Where ClickHouse has lost these rows nothing more is shown until they are there
again, and somebody has to bring them.
"""

from __future__ import annotations

import structlog

from schemas.errors_canon import ShownInDoubt
from schemas.segments import BlockRef

log = structlog.get_logger(__name__)

SAY_SECONDS = 60.0
"""How long a doubt lasts before it is said, and between two times that it is."""


class DoubtWatch:
    """Says how long a chain's publisher has been in one doubt."""

    def __init__(self) -> None:
        self._doubt: tuple[BlockRef, int] | None = None
        self._since = self._said = 0.0

    def look(self, doubt: tuple[BlockRef, int] | None, now: float) -> None:
        """Take what is in doubt now, as `Publisher.doubt` has it; seconds of a steady clock."""
        if doubt is None or doubt != self._doubt:
            self._doubt, self._since, self._said = doubt, now, now
        elif now - self._said >= SAY_SECONDS:
            self._said = now
            block, kept = doubt
            seconds = now - self._since
            error = ShownInDoubt(from_block=kept + 1, to_block=block.number, seconds=seconds)
            log.warning(
                "shown_blocks_in_doubt",
                code=error.code,
                what=error.what_text,
                fix=error.fix_text,
                since_seconds=round(seconds),
            )
