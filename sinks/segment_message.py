"""Messages of data topics in, segments that fit the tables out, or the reason why not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from schemas.chains import ChainFacts
from schemas.codec import (
    decode_aggregate_segment,
    decode_block_segment,
    decode_event_segment,
    decode_log_segment,
)
from schemas.errors_roles import ForeignMessage, SegmentOfOtherContent
from schemas.errors_sinks import ColumnsMismatch
from schemas.segments import DATA_TOPICS, SEGMENT_MESSAGES, Envelope, data_topic
from schemas.tables import Table
from sinks.writer import Segment, table_blocks


class SegmentReader:
    """Reads one chain's segments, and refuses what must not reach its tables.

    Parameters
    ----------
    chain_id
        The chain.
    facts
        Its grid.
    tables
        Every declared table.
    versions
        Content versions that count, by stream; a stream that is left out takes any.
    """

    def __init__(
        self,
        chain_id: int,
        facts: ChainFacts,
        tables: Sequence[Table],
        versions: Mapping[str, Collection[str]],
    ) -> None:
        self._chain_id, self._facts, self._versions = chain_id, facts, versions
        self._columns = {table.name: {spec.name for spec in table.columns} for table in tables}
        self._streams = {table.name: table.stream for table in tables}

    def read(self, envelope: Envelope) -> Segment:
        """The segment of a message.

        Raises
        ------
        UnknownMessage
            If the bytes are no message of ours.
        ForeignMessage, SegmentOfOtherContent, ColumnsMismatch
            If it is one that does not belong here.
        """
        try:
            segment = _decoded(envelope)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ForeignMessage(topic=envelope.topic, reason=reason) from error
        self._check_name(envelope, segment)
        self._check_rows(segment)
        return segment

    def _check_name(self, envelope: Envelope, segment: Segment) -> None:
        name, reason = segment.name, ""
        if name.chain_id != self._chain_id:
            reason = f"it is of chain {name.chain_id}, not {self._chain_id}"
        elif name.stream not in DATA_TOPICS:
            reason = f"there is no stream {name.stream!r}"
        elif envelope.topic != data_topic(name.stream, name.lane):
            reason = f"it is named {name.stream}, {name.lane}"
        elif SEGMENT_MESSAGES[name.stream] != type(segment).__name__:
            reason = f"its name is of the stream {name.stream}"
        elif not 0 <= name.from_block <= name.to_block:
            reason = f"it goes from block {name.from_block} to {name.to_block}"
        elif name.lane == "head" and name.from_block != name.to_block:
            reason = "a segment of the head holds one block"
        elif self._facts.partition(name.from_block) != self._facts.partition(name.to_block):
            reason = f"{name.from_block}-{name.to_block} is across the grid of partitions"
        if reason:
            raise ForeignMessage(topic=envelope.topic, reason=reason)
        expected = self._versions.get(name.stream)
        if expected is not None and name.content_version not in expected:
            raise SegmentOfOtherContent(
                stream=name.stream,
                from_block=name.from_block,
                to_block=name.to_block,
                found=name.content_version,
                expected=", ".join(sorted(expected)),
            )

    def _check_rows(self, segment: Segment) -> None:
        """Rows of our tables, of the blocks that the name says.

        A row of another partition would be refused by ClickHouse for ever, as if it had too many
        parts.
        """
        name = segment.name
        for table, block in table_blocks(segment).items():
            if self._streams.get(table) != name.stream:
                detail = f"the stream {name.stream} has no such table"
                raise ColumnsMismatch(table=table, detail=detail)
            if not block.rows:
                continue
            if set(block.columns) != self._columns[table]:
                strange = sorted(set(block.columns) ^ self._columns[table])
                raise ColumnsMismatch(table=table, detail=f"it differs in {', '.join(strange)}")
            numbers = np.asarray(block.columns["block_number"])
            low, high = int(numbers.min()), int(numbers.max())
            if low < name.from_block or high > name.to_block:
                reason = f"{table} has rows of blocks {low}-{high}"
                raise ForeignMessage(topic=data_topic(name.stream, name.lane), reason=reason)


def _decoded(envelope: Envelope) -> Segment:
    schema = envelope.headers.get("schema")
    if schema == "BlockSegment":
        return decode_block_segment(envelope.value)
    if schema == "LogSegment":
        return decode_log_segment(envelope.value)
    if schema == "EventSegment":
        return decode_event_segment(envelope.value)
    if schema == "AggregateSegment":
        return decode_aggregate_segment(envelope.value)
    reason = f"its header `schema` is {schema}"
    raise ForeignMessage(topic=envelope.topic, reason=reason)
