"""Compare the stored chain with the endpoints': is its final block theirs, and what is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from infra.patience import patiently
from infra.storage import Storage
from ingest.head_answers import Votes, ask_until_confirmed, ask_votes
from ingest.headwindow import HeadHeader
from ingest.providers import ProviderPool
from schemas.errors import HeadraceError
from schemas.errors_canon import ReorgBelowFinalized
from schemas.errors_infra import ChainReplaced, ForkUnknown
from schemas.errors_ingest import EndpointsBehind
from sinks.canon_row import CanonRow


class StoredChain:
    """What is visible, beside what the endpoints have.

    Parameters
    ----------
    pool
        The endpoints.
    storage
        The chain's database.
    visible
        The newest canon row; None while nothing is visible.
    """

    def __init__(
        self, pool: ProviderPool, storage: Storage, visible: Callable[[], CanonRow | None]
    ) -> None:
        self._pool, self._storage, self._visible = pool, storage, visible

    async def check(self) -> None:
        """Ask every endpoint for our newest final block; without one for genesis, if it is stored.

        Raises
        ------
        ChainReplaced
            More endpoints deny it than confirm it, and nothing that is stored is on their chain.
        ForkUnknown
            More endpoints deny it than confirm it; a part of what is stored is on their chain.
        EndpointsBehind
            No endpoint's head is as high.
        """
        row = self._visible()
        if row is None:
            return
        lowest = (await self._stored(row.floor))[0]
        final = lowest
        if row.finalized is not None:
            final = HeadHeader(row.finalized.number, row.finalized.hash, b"")
        elif row.floor > 0:
            return
        votes = await ask_until_confirmed(self._pool, final)
        if votes.replaced:
            raise await self.contradiction(row, final.number)
        if votes.beyond:
            # Too low to say: a node that is not in sync has our lowest block, another chain not.
            if (await ask_until_confirmed(self._pool, lowest)).replaced:
                raise ChainReplaced(number=row.floor)
            raise EndpointsBehind(endpoints=votes.beyond, number=final.number)

    async def contradiction(self, row: CanonRow, number: int) -> HeadraceError:
        """The error for a final block that the endpoints' chain lacks: it names the remedy."""
        shared = await self._shared_block(row)
        if shared is None:
            return ChainReplaced(number=row.floor)
        return ForkUnknown(number=number, to_block=shared)

    async def located(self, error: ReorgBelowFinalized) -> HeadraceError:
        """The error of a running head, with the block where the branches part."""
        row = self._visible()
        if row is None:
            return error
        shared = await self._shared_block(row)
        if shared is None:
            return ChainReplaced(number=row.floor)
        return ReorgBelowFinalized(**{**error.data, "to_block": shared})

    async def _shared_block(self, row: CanonRow) -> int | None:
        """The last visible block that the endpoints' chain has; None where it has none."""
        if not await self._is_shared(row.floor):
            return None
        low, high = row.floor, row.head.number
        while low < high:
            middle = (low + high + 1) // 2
            if await self._is_shared(middle):
                low = middle
            else:
                high = middle - 1
        return low

    async def _is_shared(self, number: int) -> bool:
        stored = await self._stored(number)
        votes = await ask_votes(self._pool, stored[0]) if stored else Votes()
        return len(votes.confirmed) > len(votes.denied)

    async def _stored(self, number: int) -> list[HeadHeader]:
        read = partial(self._storage.visible_headers, number, number)
        return await asyncio.to_thread(patiently, read)
