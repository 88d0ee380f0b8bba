"""Ask endpoints for their heads and for blocks that we hold: one request to each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import structlog

from ingest.endpoint import Endpoint
from ingest.fetch import NULL
from ingest.headwalk import HeaderReader
from ingest.headwindow import HeadHeader, read_header
from ingest.providers import ProviderPool
from ingest.rpc import Outcome, RpcCall
from schemas.errors import HeadraceError
from schemas.errors_ingest import BlockNotServed

log = structlog.get_logger(__name__)

FinalityTag = Literal["safe", "finalized"]
TAGS: tuple[FinalityTag, ...] = ("safe", "finalized")
CALLS = 5
"""Calls of one request, at most."""
Has = Literal["same", "other", "absent", "unknown"]
"""What an endpoint has at the height of a block of ours: that block, another one, nothing because
its head is lower, or no usable answer."""


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What one endpoint said in one request."""

    latest: HeadHeader
    """Its head."""
    final: HeadHeader
    """The block of ours, taken for final, that it was asked about."""
    has_final: Has
    """What it has at that height."""
    gone: bool
    """Whether it no longer has the head of ours that it was asked about."""
    tagged: tuple[tuple[FinalityTag, HeadHeader], ...] = ()
    """Its safe and finalized blocks, as far as it gave them."""


async def ask_head(
    endpoint: Endpoint,
    final: HeadHeader,
    head: HeadHeader | None = None,
    tags: Iterable[FinalityTag] = (),
    read: HeaderReader = read_header,
) -> HeadAnswer:
    """Ask one endpoint for its head, for `tags`, and at the heights of two blocks of ours.

    Raises
    ------
    HeadraceError
        It did not answer, or gave no head.
    """
    tags, ours = tuple(tags), head or final
    blocks = ["latest", *(hex(max(0, block.number)) for block in (final, ours)), *tags]
    calls = [RpcCall("eth_getBlockByNumber", (block, False)) for block in blocks]
    latest, *others = await endpoint.ask(calls)
    if isinstance(latest, HeadraceError):
        raise latest
    if latest == NULL:
        raise BlockNotServed(endpoint=endpoint.name, block="latest")
    try:
        newest = read(latest)
    except HeadraceError as error:
        named = type(error)(**error.data | {"endpoint": endpoint.name})
        raise named from None
    at_final, at_head, *tagged = (_header_or_none(outcome, read) for outcome in others)
    has: Has = "absent" if newest.number < final.number else "unknown"
    if at_final is not None:
        has = "same" if at_final.hash == final.hash else "other"
    gone = others[1] == NULL if at_head is None else at_head.hash != ours.hash
    headers = zip(tags, tagged, strict=True)
    return HeadAnswer(
        newest, final, has, gone, tuple((tag, header) for tag, header in headers if header)
    )


def _header_or_none(outcome: Outcome, read: HeaderReader) -> HeadHeader | None:
    """The header of an outcome; None where it is null, an error, or not provable."""
    if isinstance(outcome, HeadraceError) or outcome == NULL:
        return None
    try:
        return read(outcome)
    except HeadraceError as error:
        log.info("head_header_refused", code=error.code)
        return None


@dataclass(frozen=True, slots=True)
class Votes:
    """The endpoints' answers about one block. One that failed to answer has no vote."""

    confirmed: tuple[Endpoint, ...] = ()
    """They have that block."""
    denied: tuple[Endpoint, ...] = ()
    """They have another block at its height."""
    behind: tuple[Endpoint, ...] = ()
    """Their heads are below its height."""

    @property
    def replaced(self) -> bool:
        """Whether more endpoints deny the block than confirm it."""
        return len(self.denied) > len(self.confirmed)

    @property
    def beyond(self) -> str:
        """The endpoints' names where nobody is so high that it could confirm or deny the block."""
        unsaid = not self.confirmed and not self.denied
        return ", ".join(endpoint.name for endpoint in self.behind) if unsaid else ""


async def ask_votes(
    pool: ProviderPool, block: HeadHeader, endpoints: Iterable[Endpoint] | None = None
) -> Votes:
    """Ask endpoints once, all at the same time, whether they have a block.

    Parameters
    ----------
    pool : ProviderPool
        The endpoints.
    block : HeadHeader
        The block that is asked about.
    endpoints : Iterable[Endpoint], optional
        Who is asked; every usable endpoint where not given.
    """
    asked = list(pool.usable() if endpoints is None else endpoints)

    async def vote(endpoint: Endpoint) -> Has:
        try:
            served = await pool.run_on(endpoint, lambda e: ask_head(e, block), calls=CALLS)
        except HeadraceError:
            return "unknown"
        return served.value.has_final

    answers = list(zip(asked, await asyncio.gather(*map(vote, asked)), strict=True))

    def those(has: Has) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint, answer in answers if answer == has)

    return Votes(those("same"), those("other"), those("absent"))


async def ask_until_confirmed(pool: ProviderPool, block: HeadHeader) -> Votes:
    """Ask every endpoint for a block, again while nobody confirms it, `rollback_polls` times.

    One answer alone may come from a gateway's node that lags.
    """
    votes = Votes()
    for attempt in range(pool.limits.rollback_polls):
        votes = await ask_votes(pool, block)
        if votes.confirmed or not (votes.denied or votes.behind):
            break
        await asyncio.sleep(pool.backoff_seconds(attempt))
    return votes
