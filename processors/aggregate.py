"""An EventSegment in, the AggregateSegment of the same blocks out.

An aggregate's row is of one block and one key. So the rows of a segment are those of its blocks
one after the other, whichever segments the blocks came in, and a reorg takes a row away with its
block: nothing is ever subtracted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from processors.aggregate_pools import pool_trades
from processors.aggregate_tokens import token_flows
from schemas.segments import AggregateSegment, EventSegment, content_version

AGGREGATOR_VERSION = 1
"""Rises whenever the same events may give other rows."""


def aggregate_events(segment: EventSegment) -> AggregateSegment:
    """Add up the events of each block of a segment.

    Parameters
    ----------
    segment
        Every table that the aggregates need, rows in the order of the chain; one that is not
        there counts as empty.

    Returns
    -------
    AggregateSegment
        One block each of ``AGGREGATE_TABLES``, in that order; rows of a block stand together, in
        an order that depends on nothing but their keys.
    """
    tables = {block.table: block for block in segment.tables if block.rows}
    version = aggregate_version(segment.name.content_version)
    name = replace(segment.name, stream="aggregates", content_version=version)
    blocks = (token_flows(tables), pool_trades(tables))
    return AggregateSegment(name, segment.observed_at_ms, blocks)


@lru_cache(maxsize=64)
def aggregate_version(events: str) -> str:
    """The content version of aggregates from that of their events."""
    return content_version(events=events, aggregator=AGGREGATOR_VERSION)
