"""Check the logs of a segment against the blooms of its headers.

A bloom covers the addresses and topics of logs, not their data, order or number. So it finds a log
of another block, and where all logs were asked for an answer that left out what no other log names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.bloom import BLOOM_BITS, bloom_positions
from ingest.places import block_place
from ingest.rlpcolumns import rows_of
from ingest.system_logs import find_system_logs
from ingest.wire import Block
from schemas.chains import ChainFacts
from schemas.columns import ColumnBlock
from schemas.errors_verify import BloomMismatch, LogsMissing

Mask = npt.NDArray[np.bool_]
Owners = npt.NDArray[np.int64]
"""The row of each log's block."""


@dataclass(frozen=True, slots=True)
class BloomCheck:
    """What the blooms of a segment's headers speak of."""

    bits: Mask
    """bool[blocks, 2048]: the headers' blooms."""
    own: Mask
    """Blocks whose header has the bloom of their own logs, not that of earlier blocks."""
    system: Mask
    """Logs that the chain keeps outside of the bloom."""

    def unproven(self) -> tuple[str, ...]:
        """What the blooms say nothing of, in words."""
        words = []
        earlier, system = int((~self.own).sum()), int(self.system.sum())
        if earlier:
            words.append(f"logs in {earlier} of {len(self.own)} blocks: header is of earlier ones")
        if system:
            words.append(f"{system} logs of the chain itself: no header covers them")
        return tuple(words)


def header_speaks_of_itself(blocks: ColumnBlock, facts: ChainFacts) -> Mask:
    """Which blocks have a header with roots, bloom and gas of their own, not of earlier blocks."""
    own = np.ones(blocks.rows, np.bool_)
    if facts.settled_by:
        mark = f'"{facts.settled_by}"'.encode()
        texts: Any = blocks.columns["extra"]
        ends, raw = texts.offsets.tolist(), texts.values.tobytes()
        for row in range(blocks.rows):
            own[row] = mark not in raw[ends[row] : ends[row + 1]]
    return own


def check_blooms(
    blocks: Sequence[Block],
    table: ColumnBlock,
    logs: ColumnBlock,
    owners: Owners,
    facts: ChainFacts,
    *,
    all_logs: bool,
) -> BloomCheck:
    """Check that each log is under its header's bloom, and that no other must be.

    Parameters
    ----------
    blocks : sequence of Block
        Only read to name one in an error.
    table : ColumnBlock
        Their rows of ``blocks``.
    logs : ColumnBlock
        Rows of ``logs``.
    owners : int64[logs]
        The row of each log's block.
    facts : ChainFacts
        The chain.
    all_logs : bool
        Whether `logs` should be all of the blocks: then they must give the headers' blooms.

    Raises
    ------
    BloomMismatch
        A header's bloom excludes a log.
    LogsMissing
        A header's bloom names what no log has.
    """
    column: Any = table.columns["logs_bloom"]
    bits = np.unpackbits(column.values, axis=1).view(np.bool_)
    found = BloomCheck(
        bits,
        header_speaks_of_itself(table, facts),
        find_system_logs(facts.system_logs, table, logs, owners),
    )
    covered = ~found.system & found.own[owners]
    flat, named = bits.ravel(), np.zeros(bits.size if all_logs else 0, np.bool_)
    for places, rows in _bloom_places(logs, owners, covered):
        held = flat.take(places)
        for index in np.flatnonzero(~held.all(axis=1))[:1].tolist():
            raise BloomMismatch(owner="the header", **block_place(blocks[int(rows[index])]))
        if all_logs:
            named[places] = True
    if all_logs:
        missing = np.any(bits & ~named.reshape(bits.shape), axis=1) & found.own
        for row in np.flatnonzero(missing)[:1].tolist():
            raise LogsMissing(found=int(np.sum(owners == row)), **block_place(blocks[row]))
    return found


def _bloom_places(
    logs: ColumnBlock, owners: Owners, covered: Mask
) -> list[tuple[npt.NDArray[np.int64], Owners]]:
    """Of each column of addresses and topics the bits that it sets, and the blocks they are of."""
    columns: dict[str, Any] = logs.columns
    everything = bool(covered.all())
    parts = [(columns["address"], None if everything else covered)]
    for place in range(4):
        topic = columns[f"topic{place}"]
        parts.append((topic.values, topic.valid & covered))
    places = []
    for column, rows in parts:
        values, holders = (column, owners) if rows is None else (column[rows], owners[rows])
        if not len(values):
            continue
        if (values == values[0]).all():
            # Often one topic is all that was asked for: it is looked up once a block.
            values, holders = values[:1], np.flatnonzero(np.bincount(holders))
        bits = bloom_positions(rows_of(values))
        places.append((bits + holders[:, None] * BLOOM_BITS, holders))
    return places
