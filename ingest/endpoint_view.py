"""Keep what one endpoint says of the chain: its head, and whether it has our final block. Pure.

The head follower holds one `EndpointView` per endpoint. Each answer gives the next view. A head
counts only while the endpoint holds our newest final block: an endpoint that has another block
there, or no block so high, serves another chain, or one that went back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ingest.head_answers import Has
from ingest.headwindow import HeadHeader
from ingest.limits import IngestLimits

Verdict = Literal["held", "doubted", "denied"]
"""`doubted` until the answer has been repeated (`other`) or has lasted (`absent`)."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """What one endpoint has said so far."""

    head: HeadHeader | None = None
    """The newest head that was taken from it."""
    lower: bytes | None = None
    """Hash of an ancestor of `head` that it names as its head since."""
    lower_polls: int = 0
    """Polls in a row that named `lower` while the endpoint no longer had `head`."""
    other_polls: int = 0
    """Polls in a row that found another block at the height of our final block."""
    absent_since: float | None = None
    """Since when its head has been below our final block; None while it is not."""

    def saw_final(self, has: Has, now: float) -> EndpointView:
        """The view after an answer about our final block.

        Parameters
        ----------
        has : Has
            What it has at the height of that block; `unknown` changes nothing.
        now : float
            Monotonic time, seconds.
        """
        if has == "same":
            return replace(self, other_polls=0, absent_since=None)
        if has == "other":
            return replace(self, other_polls=self.other_polls + 1, absent_since=None)
        if has == "absent":
            since = now if self.absent_since is None else self.absent_since
            return replace(self, other_polls=0, absent_since=since)
        return self

    def verdict(self, now: float, limits: IngestLimits) -> Verdict:
        """Whether the endpoint holds our final block, and whether that is settled."""
        absent = None if self.absent_since is None else now - self.absent_since
        lasted = absent is not None and absent >= limits.final_absent_seconds
        if lasted or self.other_polls >= limits.final_denied_polls:
            return "denied"
        return "held" if absent is None and not self.other_polls else "doubted"

    def saw_head(
        self, header: HeadHeader, *, is_ancestor: bool, gone: bool, limits: IngestLimits
    ) -> tuple[EndpointView, bool]:
        """The view after the endpoint named a head, and whether that head counts and is new.

        Parameters
        ----------
        header : HeadHeader
            The head it names.
        is_ancestor : bool
            Whether it is an ancestor of the head that was taken before.
        gone : bool
            Whether a poll found that the endpoint no longer has the former head. An ancestor is
            named by a gateway with a node that lags far more often than by a rollback, so it
            counts only if the former head is gone in `rollback_polls` polls in a row.
        limits : IngestLimits
            Bounds.
        """
        if self.head is not None and header.hash == self.head.hash:
            return replace(self, lower=None, lower_polls=0), False
        if is_ancestor:
            if not gone:
                return self, False
            polls = self.lower_polls + 1 if self.lower == header.hash else 1
            if polls < limits.rollback_polls:
                return replace(self, lower=header.hash, lower_polls=polls), False
        return replace(self, lower=None, lower_polls=0), True

    def took(self, header: HeadHeader) -> EndpointView:
        """The view once a head has been taken: connected and published."""
        return replace(self, head=header)
