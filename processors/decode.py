"""A LogSegment and the layouts in, the EventSegment of every declared table out.

Logs are grouped by topic0 and number of topics with one sort; each group is decoded at once, and
tables are slices of what was gathered in group order. A log that should have been decoded and was
not is a row of ``decode_failures``; a log whose topic0 nobody declared is none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.abi import Claim, Group, Layout, Layouts, Rows
from processors.abi_tails import Reason, Tails
from processors.abi_words import take_bytes
from processors.decode_failures import (
    LOG_COLUMNS,
    Codes,
    OpenLogs,
    Refusal,
    failure_rows,
    open_logs,
)
from schemas.columns import Column, ColumnBlock, Nullable, concat, take
from schemas.kinds import parse_kind
from schemas.segments import EventSegment, LogSegment, content_version

_TOPICS = ("topic0", "topic1", "topic2", "topic3")


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that one layout gave."""

    layout: Layout
    """The layout."""
    logs: Rows
    """The log of each row, as its position in the segment, never falling."""
    columns: list[Column]
    """The parameters' columns."""
    sub_index: npt.NDArray[np.uint32] | None
    """Position in a batch; None where every log gave one row."""
    gathered: slice | None
    """Where the rows' logs stand in group order, if they are a group in full."""


def decode_logs(segment: LogSegment, layouts: Layouts) -> EventSegment:
    """Decode every log of a segment that any of the layouts claims.

    Parameters
    ----------
    segment
        The logs, with the columns of the table ``logs``, in the order of the chain.
    layouts
        What `build_layouts` made of the packs and the user's contracts.

    Returns
    -------
    EventSegment
        One block a table of ``layouts.tables``, in that order, rows in the order of the chain.

    Source: Solidity documentation, "Contract ABI Specification"; eth-abi 6 in strict mode.
    """
    blocks = list(layouts.empty_blocks)
    if segment.logs.rows:
        _decode(segment.logs, layouts, blocks)
    version = _event_version(segment.name.content_version, layouts.content_version)
    name = replace(segment.name, stream="events", content_version=version)
    return EventSegment(name, segment.observed_at_ms, tuple(blocks))


@lru_cache(maxsize=64)
def _event_version(logs: str, layouts: str) -> str:
    return content_version(logs=logs, layouts=layouts)


def _decode(block: ColumnBlock, layouts: Layouts, blocks: list[ColumnBlock]) -> None:
    """Fill in the blocks of the tables that have rows."""
    columns: dict[str, Any] = block.columns
    order, bounds = _grouped(columns, layouts)
    if not len(order):
        return
    logs = open_logs(block)
    position = {name: columns[name].take(order, axis=0) for name in (*LOG_COLUMNS, "address")}
    parts: dict[int, list[_Part]] = defaultdict(list)
    refusals: list[Refusal] = []
    for number, start, end in bounds:
        group = layouts.groups[number - 1]
        for part in _decode_group(group, logs, order, slice(start, end), refusals):
            if len(part.logs):
                parts[part.layout.table].append(part)
    for table, found in parts.items():
        name = layouts.tables[table].name
        blocks[table] = _block(name, found, position, columns)
    if any(len(refusal.logs) for refusal in refusals):
        blocks[-1] = failure_rows(refusals, logs)


def _grouped(columns: dict[str, Any], layouts: Layouts) -> tuple[Rows, list[tuple[int, int, int]]]:
    """The logs of known groups in group order, and each group's (number, start, end) in it."""
    topics: list[Nullable] = [columns[name] for name in _TOPICS]
    known = len(layouts.prefixes)
    whole = np.ascontiguousarray(topics[0].values).view("<u8")
    at = layouts.prefixes.searchsorted(whole[:, 0])
    np.minimum(at, known - 1, out=at)
    counts = topics[0].valid.view(np.uint8) + topics[1].valid
    counts += topics[2].valid
    counts += topics[3].valid
    numbers = layouts.group_numbers[at, counts]
    same = layouts.topic0.take(at, axis=0) == whole
    if not same.all():
        numbers = np.where(same.all(axis=1), numbers, 0)
    order = numbers.argsort(kind="stable")
    ranked = numbers[order]
    edges = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
    starts = [0, *edges.tolist()]
    ends = [*starts[1:], len(order)]
    bounds = [
        (number, start, end)
        for number, start, end in zip(ranked[starts].tolist(), starts, ends, strict=True)
        if number
    ]
    return (order, bounds) if bounds else (order[:0], bounds)


def _decode_group(
    group: Group, logs: OpenLogs, order: Rows, span: slice, refusals: list[Refusal]
) -> list[_Part]:
    """The parts that the claims on a group give; adds what should have been taken to `refusals`.

    A claim on certain addresses means those logs: each that it refuses is reported. A claim on
    every address reports only the logs that no claim at all takes.
    """
    members = order[span]
    parts: list[_Part] = []
    tried: list[tuple[Rows, Rows]] = []
    missed: Refusal | None = None
    for claim in group.claims:
        mine = members
        if claim.addresses is not None:
            mine = members[claim.addresses.holds(logs.columns["address"][members])]
            if not len(mine):
                continue
        taken, rest, codes = _decode_claim(claim, logs, mine, span)
        parts += taken
        tried.append((mine, rest))
        if len(rest) and claim.addresses is not None:
            refusals.append(Refusal(group, claim, rest, codes))
        elif len(rest):
            missed = missed or Refusal(group, claim, rest, codes)
    if missed is not None:
        lost = np.ones(len(missed.logs), np.bool_)
        for mine, rest in tried:
            lost &= ~np.isin(missed.logs, mine) | np.isin(missed.logs, rest)
        refusals.append(replace(missed, logs=missed.logs[lost], codes=missed.codes[lost]))
    return parts


def _decode_claim(
    claim: Claim, logs: OpenLogs, rest: Rows, span: slice
) -> tuple[list[_Part], Rows, Codes]:
    """Try the claim's layouts in turn; returns what was taken, and what was refused and why."""
    parts: list[_Part] = []
    codes = np.full(0, 0, np.int16)
    if not claim.layouts:
        return parts, rest, np.full(len(rest), Reason.TOPICS, np.int16)
    for layout in claim.layouts:
        part, rest, codes = _decode_layout(layout, logs, rest, span)
        if part is not None:
            parts.append(part)
        if not len(rest):
            break
    return parts, rest, codes


def _decode_layout(
    layout: Layout, logs: OpenLogs, members: Rows, span: slice
) -> tuple[_Part | None, Rows, Codes]:
    """The rows of one layout, and the logs that it refuses with the reasons."""
    starts = logs.offsets[members]
    ends = logs.offsets[1:][members]
    refused = members[:0]
    codes = np.zeros(0, np.int16)
    short = ends - starts < layout.head_bytes
    if short.any():
        refused = members[short]
        codes = np.full(len(refused), Reason.SHORT, np.int16)
        members, starts, ends = members[~short], starts[~short], ends[~short]
        if not len(members):
            return None, refused, codes
    columns, bad = _parameters(layout, logs, members, starts, ends)
    if bad is not None:
        refused = np.concatenate([refused, members[bad != 0]])
        codes = np.concatenate([codes, bad[bad != 0]])
        kept = np.flatnonzero(bad == 0)
        members = members[kept]
        columns = [
            take(parse_kind(kind), column, kept)
            for kind, column in zip(layout.kinds, columns, strict=True)
        ]
    whole = span if len(members) == span.stop - span.start else None
    if layout.batch:
        return _exploded(layout, members, columns), refused, codes
    return _Part(layout, members, columns, None, whole), refused, codes


def _parameters(
    layout: Layout, logs: OpenLogs, members: Rows, starts: Rows, ends: Rows
) -> tuple[list[Column], Codes | None]:
    """The parameters' columns, and per log what is wrong with it (None: nothing with any)."""
    columns: list[Any] = [None] * len(layout.columns)
    found: list[tuple[int, npt.NDArray[np.bool_]]] = []
    for position, name, reader in layout.topics:
        columns[position], wrong = reader(logs.columns[name].values.take(members, axis=0))
        if wrong is not None:
            found.append((position, wrong))
    bad: Codes | None = None
    if layout.words:
        words = take_bytes(logs.buffer, starts, layout.head_bytes)
        for at, (position, reader) in enumerate(layout.words):
            columns[position], wrong = reader(words[:, 32 * at : 32 * at + 32])
            if wrong is not None:
                found.append((position, wrong))
    elif layout.tails:
        tails = Tails(logs.buffer, starts, ends)
        places = [position for position, _ in layout.tails]
        decoded = tails.parameters(tuple(abi_type for _, abi_type in layout.tails))
        for position, column in zip(places, decoded, strict=True):
            columns[position] = column
        if tails.refused.any():
            renumbered = np.array(places, np.int16)[tails.refused >> 4] * 16 + (tails.refused & 15)
            bad = np.where(tails.refused != 0, renumbered, 0).astype(np.int16)
    if layout.batch:
        lengths = [np.diff(columns[position].offsets) for position in layout.batch]
        for position, other in zip(layout.batch[1:], lengths[1:], strict=True):
            if (other != lengths[0]).any():
                wrong = other != lengths[0]
                bad = np.zeros(len(members), np.int16) if bad is None else bad
                bad[wrong & (bad == 0)] = position * 16 + Reason.BATCH
    for position, wrong in found:
        bad = np.zeros(len(members), np.int16) if bad is None else bad
        bad[wrong & (bad == 0)] = position * 16 + Reason.VALUE
    return columns, bad


def _exploded(layout: Layout, members: Rows, columns: list[Any]) -> _Part:
    """One row an element of the batch's arrays."""
    offsets = columns[layout.batch[0]].offsets
    counts = np.diff(offsets)
    logs = np.repeat(np.arange(len(members)), counts)
    sub_index = (np.arange(int(offsets[-1])) - offsets[:-1][logs]).astype(np.uint32)
    rows = [
        column.values if i in layout.batch else take(parse_kind(kind), column, logs)
        for i, (kind, column) in enumerate(zip(layout.kinds, columns, strict=True))
    ]
    return _Part(layout, members[logs], rows, sub_index, None)


def _block(
    name: str, parts: list[_Part], position: dict[str, Any], columns: dict[str, Any]
) -> ColumnBlock:
    """A table's rows in the order of the chain."""
    first = parts[0]
    if len(parts) == 1 and first.gathered is not None:
        rows = len(first.logs)
        block: dict[str, Column] = {key: column[first.gathered] for key, column in position.items()}
        address = block.pop("address")
        block["sub_index"] = np.zeros(rows, np.uint32)
        block["address"] = address
        block.update(zip(first.layout.columns, first.columns, strict=True))
        return ColumnBlock(name, rows, block)
    logs = np.concatenate([part.logs for part in parts])
    order = logs.argsort(kind="stable")
    logs = logs[order]
    subs = [
        np.zeros(len(part.logs), np.uint32) if part.sub_index is None else part.sub_index
        for part in parts
    ]
    block = {key: np.take(columns[key], logs, axis=0) for key in LOG_COLUMNS}
    block["sub_index"] = np.concatenate(subs)[order]
    block["address"] = np.take(columns["address"], logs, axis=0)
    for i, column in enumerate(first.layout.columns):
        kind = parse_kind(_row_kind(first.layout, i))
        block[column] = take(kind, concat(kind, [part.columns[i] for part in parts]), order)
    return ColumnBlock(name, len(logs), block)


def _row_kind(layout: Layout, position: int) -> str:
    kind = layout.kinds[position]
    return kind[1:-1] if position in layout.batch else kind
