"""Words of one chain in `forks` in, those that are not of the past out. No IO.

A worker that stood still and has lost its partition may speak before it learns that: its words
follow from heads that the chain's new worker heard long ago, and may even fit what was told last.
Each word says up to which offset of `raw.heads` its teller had heard the chain, so one that is
behind another that was taken is left out. Two words of one offset say the same.

Offsets begin anew only where `raw.heads` was made anew. Then words stay behind for good, while one
who has lost the partition falls silent within seconds: so after a while with nothing but words of
the past they are the present.
"""

from __future__ import annotations

import structlog

from infra.roles.topic_reader import Read
from processors.agent_messages import HEARD, SNAPSHOT

log = structlog.get_logger(__name__)

ANEW_MS = 60_000
"""After so long with nothing but words of the past, heads have begun anew."""


BEHIND_MAX = 4_096
"""Words of the past that are kept. A teller gives a snapshot every 64 words, which begins anew."""


class ForkFence:
    """Leaves out what is behind; remembers `BEHIND_MAX` words of it, at most."""

    def __init__(self) -> None:
        self._heard = -1
        self._behind: list[Read] = []
        self._behind_since_ms: int | None = None

    def take(self, word: Read) -> list[Read]:
        """The words to be followed now: mostly this one.

        Parameters
        ----------
        word
            The next word of the chain, in order. One that says nothing of what was heard, as
            none did before this fence, is followed.
        """
        text = word.envelope.headers.get(HEARD, "")
        if not text.removeprefix("-").isdecimal():
            return [word]
        heard = int(text)
        if heard >= self._heard:
            self._begin(heard)
            return [word]
        if self._behind_since_ms is None:
            self._behind_since_ms = word.at_ms
            log.warning("fork_update_behind", offset=word.offset, heard=heard, ours=self._heard)
        if is_snapshot(word):
            self._behind = [word]
        elif len(self._behind) >= BEHIND_MAX:
            # No teller of ours speaks so: the next snapshot tells all of it again.
            self._behind = []
        elif self._behind:
            self._behind.append(word)
        if not self._behind or word.at_ms - self._behind_since_ms < ANEW_MS:
            return []
        log.warning("heads_began_anew", offset=word.offset, heard=heard, ours=self._heard)
        present = self._behind
        self._begin(heard)
        return present

    def _begin(self, heard: int) -> None:
        self._heard, self._behind, self._behind_since_ms = heard, [], None


def is_snapshot(word: Read) -> bool:
    """Whether a word tells the whole fork."""
    return SNAPSHOT in word.envelope.headers
