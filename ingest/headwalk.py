"""A new head in, the headers that connect it to what is known out, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec
import structlog

from ingest.endpoint import Endpoint
from ingest.fetch import BlockId, fetch_headers
from ingest.headwindow import HeadHeader, HeadWindow, read_header
from ingest.providers import ProviderPool, Terms
from ingest.publish import Build
from schemas.errors import HeadraceError, Permanent
from schemas.errors_ingest import BlockNotServed

log = structlog.get_logger(__name__)

HEADERS_PER_REQUEST = 50

HeaderReader: TypeAlias = Callable[[bytes | msgspec.Raw], HeadHeader]
"""Reads a header from JSON and proves its hash where it can; raises an HR-22xx error."""


@runtime_checkable
class ReadsHeaders(Protocol):
    """A `Build` that also reads headers, and proves their hashes as far as its level says."""

    def read_header(self, header: bytes | msgspec.Raw) -> HeadHeader:
        """Read and prove one header; raises an HR-22xx error."""
        ...


def reader_of(build: Build) -> HeaderReader:
    """How headers are read beside blocks that `build` proves."""
    return build.read_header if isinstance(build, ReadsHeaders) else read_header


async def linked_headers(pool: ProviderPool, numbers: Sequence[int]) -> list[HeadHeader]:
    """Headers by height, as long as each is the child of the one before.

    Parameters
    ----------
    pool : ProviderPool
        Who is asked.
    numbers : Sequence[int]
        Heights of a range, ascending.

    Raises
    ------
    HeadraceError
        A header could not be had.
    """
    found: list[HeadHeader] = []
    for at in range(0, len(numbers), HEADERS_PER_REQUEST):
        part = numbers[at : at + HEADERS_PER_REQUEST]

        async def work(endpoint: Endpoint, part: Sequence[int] = part) -> list[HeadHeader]:
            return [read_header(raw) for raw in await fetch_headers(endpoint, part)]

        terms = Terms(f"headers from block {part[0]}", calls=len(part))
        for header in (await pool.run(work, terms)).value:
            if found and header.parent_hash != found[-1].hash:
                return found
            found.append(header)
    return found


async def walk_back(
    pool: ProviderPool,
    window: HeadWindow,
    head: HeadHeader,
    endpoint: Endpoint,
    read: HeaderReader,
) -> list[HeadHeader]:
    """Walk parents back from a head until one is known, or is below the window's floor.

    Over a gap, headers are asked for by height, many in one request, and taken while they link;
    where they do not, the node changed its mind, and the parent is asked for by hash.

    Parameters
    ----------
    pool : ProviderPool
        Who is asked.
    window : HeadWindow
        What is known.
    head : HeadHeader
        A header that is not known.
    endpoint : Endpoint
        Who named it: asked first.
    read : HeaderReader
        Reads a header.

    Returns
    -------
    list[HeadHeader]
        Ancestors first, `head` last. Where the oldest is at the floor and its parent unknown,
        the branch contradicts what is final.

    Raises
    ------
    ProvidersExhausted
        A parent could not be had.
    """
    path = [head]
    step = 1
    while len(path) < pool.limits.head_walk_blocks_max:
        oldest = path[-1]
        lowest = max(window.floor, 0)
        if oldest.parent_hash in window or oldest.number <= lowest:
            break
        gap = oldest.number - 1 - window.highest
        count = min(max(step, gap), pool.limits.batch_calls_max, oldest.number - lowest)
        path.extend(await _parents(pool, oldest, max(count, 1), endpoint, read))
        step *= 2
    else:
        log.warning("head_walk_given_up", head=head.number, blocks=len(path))
    connected = next(
        (at for at, header in enumerate(path) if header.parent_hash in window), len(path) - 1
    )
    return path[connected::-1]


async def _parents(
    pool: ProviderPool, child: HeadHeader, count: int, endpoint: Endpoint, read: HeaderReader
) -> list[HeadHeader]:
    """Up to `count` ancestors of a header, at least one, newest first."""
    by_hash = count == 1
    wanted: list[BlockId] = (
        [child.parent_hash] if by_hash else [child.number - back for back in range(1, count + 1)]
    )

    async def work(asked: Endpoint) -> list[HeadHeader]:
        found = []
        parent = child.parent_hash
        for raw in await fetch_headers(asked, wanted):
            header = read(raw)
            if header.hash != parent:
                break
            found.append(header)
            parent = header.parent_hash
        if by_hash and not found:
            raise BlockNotServed(endpoint=asked.name, block="0x" + child.parent_hash.hex())
        return found

    terms = Terms(
        f"the ancestors of block {child.number}",
        calls=count,
        prefer=endpoint,
        repeat_seconds=pool.limits.head_repeat_seconds,
    )
    found = (await pool.run(work, terms)).value
    return found or await _parents(pool, child, 1, endpoint, read)


def refused_header(error: HeadraceError) -> HeadraceError | None:
    """The refusal behind a failed poll, where the head that came last cannot be read or proven."""
    last = error.data.get("last")
    is_refusal = isinstance(last, Permanent) and last.code.startswith("HR-22")
    return last if isinstance(last, HeadraceError) and is_refusal else None
