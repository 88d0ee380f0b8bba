"""A final block that the fork view begins with in, the blocks below it out, by their parents.

The reorg agent tells the unfinalised window. Where it was away, or began late, that window begins
above the head blocks that are loaded, and none of its words names them. They are final, so their
hashes follow from the window's first block, parent by parent, over the rows that are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from schemas.segments import BlockRef
from sinks.canon import Canon
from sinks.canon_row import Reorg
from sinks.connection import Connection
from sinks.ddl import OPEN


def read_ancestors(
    connection: Connection, database: str, base: BlockRef, lowest: int
) -> list[BlockRef]:
    """The blocks from `lowest` to right below `base`, as far down as their rows are stored.

    Parameters
    ----------
    connection
        A connection.
    database
        The chain's database.
    base
        A final block.
    lowest
        The lowest block that is of interest.

    Returns
    -------
    list of BlockRef
        In order, without gaps, the last one the parent of `base`; empty where that is not known.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        "SELECT DISTINCT block_number, block_hash, parent_hash "
        f"FROM {database}.blocks{OPEN} WHERE block_number BETWEEN %(low)s AND %(high)s",
        {"low": lowest, "high": base.number},
        as_bytes=True,
    )
    parents = {(number, block_hash): parent for number, block_hash, parent in found}
    at, below = base, []
    while at.number > lowest and (parent := parents.get((at.number, at.hash))) is not None:
        at = BlockRef(at.number - 1, parent)
        below.append(at)
    return below[::-1]


def settle_doubts(
    connection: Connection, database: str, canon: Canon
) -> tuple[BlockRef, int] | None:
    """Name the ancestors that a canon asks for, as long as what is stored has an answer.

    Returns
    -------
    tuple of BlockRef and int, or None
        The doubt that stays (see `Canon.doubt`): rows that would settle it are not stored.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    asked = None
    while (doubt := canon.doubt()) is not None and doubt != asked:
        canon.settle(doubt[0], read_ancestors(connection, database, *doubt))
        asked = doubt
    return doubt


def tell_joined(reorg: Reorg, read_below: Callable[[BlockRef, int], Sequence[BlockRef]]) -> Reorg:
    """Add the blocks that joined by history which came before the fork's word of them.

    Parameters
    ----------
    reorg
        What the canon tells: the blocks that joined, up to one that nobody named.
    read_below
        A block and a height in, the block's ancestors from there on out: `read_ancestors`.

    Returns
    -------
    Reorg
        With all that joined, up to the new head; as it was where its rows are not stored.
    """
    if not reorg.added or reorg.added[-1] == reorg.new_head:
        return reorg
    told = reorg.added[-1]
    below = read_below(reorg.new_head, told.number)
    if not below or below[0] != told:
        return reorg
    return replace(reorg, added=(*reorg.added, *below[1:], reorg.new_head))
