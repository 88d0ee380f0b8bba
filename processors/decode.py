"""A LogSegment and the layouts in, the EventSegment of every declared table out.

Logs are grouped by topic0 and number of topics with one sort and gathered in that order, so that
a group is a slice, and so are the rows of most tables. A log that should have been decoded and was
not is a row of ``decode_failures``; a log whose topic0 nobody declared is none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from processors.abi import Claim, Group, Layout, Layouts, Rows
from processors.abi_tails import Reason
from processors.decode_failures import Refusal, failure_rows
from processors.decode_layout import (
    Codes,
    OrderedLogs,
    Part,
    Picked,
    Span,
    count,
    decode_layout,
    pick,
    places,
)
from schemas.columns import Column, ColumnBlock, concat, take
from schemas.kinds import parse_kind
from schemas.segments import EventSegment, LogSegment, content_version
from schemas.tables import LOG_POSITION

_POSITION = tuple(spec.name for spec in LOG_POSITION)


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
    if segment.logs.rows and len(layouts.prefixes):
        _decode(segment.logs.columns, layouts, blocks)
    version = event_version(segment.name.content_version, layouts.content_version)
    name = replace(segment.name, stream="events", content_version=version)
    return EventSegment(name, segment.observed_at_ms, tuple(blocks))


@lru_cache(maxsize=64)
def event_version(logs: str, layouts: str) -> str:
    """The content version of events from that of their logs and of the layouts."""
    return content_version(logs=logs, layouts=layouts)


def _decode(columns: dict[str, Any], layouts: Layouts, blocks: list[ColumnBlock]) -> None:
    """Fill in the blocks of the tables that have rows."""
    order, found = _grouped(columns, layouts)
    if not found:
        return
    logs = _gathered(columns, order)
    parts: dict[int, list[Part]] = defaultdict(list)
    refusals: list[Refusal] = []
    groups = [layouts.groups[number - 1] for number, _ in found]
    spans = _spans(logs, groups, [start for _, start in found])
    for group, span in zip(groups, spans, strict=True):
        for part in _decode_group(group, logs, span, refusals):
            if part.rows:
                parts[part.layout.table].append(part)
    for table, filling in parts.items():
        blocks[table] = _block(layouts.tables[table].name, filling, logs)
    if any(len(refusal.logs) for refusal in refusals):
        blocks[-1] = failure_rows(refusals, logs, columns["topic0"])


def _grouped(columns: dict[str, Any], layouts: Layouts) -> tuple[Rows, list[tuple[int, int]]]:
    """The logs of known groups in group order, and each group's (number, start) in it."""
    whole = np.ascontiguousarray(columns["topic0"].values).view("<u8")
    at = layouts.prefixes.searchsorted(whole[:, 0])
    np.minimum(at, len(layouts.prefixes) - 1, out=at)
    counts = columns["topic0"].valid.view(np.uint8) + columns["topic1"].valid
    counts += columns["topic2"].valid
    counts += columns["topic3"].valid
    numbers = layouts.group_numbers[at, counts]
    same = layouts.topic0.take(at, axis=0) == whole
    if not same.all():
        numbers = np.where(same.all(axis=1), numbers, 0)
    order = numbers.argsort(kind="stable")
    ranked = numbers[order]
    unknown = int(ranked.searchsorted(0, "right"))
    order, ranked = order[unknown:], ranked[unknown:]
    if not len(order):
        return order, []
    edges = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
    starts = np.concatenate([[0], edges])
    return order, list(zip(ranked[starts].tolist(), starts.tolist(), strict=True))


def _spans(logs: OrderedLogs, groups: list[Group], starts: list[int]) -> list[Span]:
    """Each group's logs, with what is known of all of them at once."""
    sizes = np.minimum.reduceat(logs.ends - logs.starts, starts).tolist()
    bits = [
        np.bitwise_or.reduceat(topic.view("<u8"), starts, axis=0).tobytes() for topic in logs.topics
    ]
    spans = []
    for i, (start, stop) in enumerate(pairwise([*starts, len(logs.order)])):
        at = slice(32 * i, 32 * i + 32)
        used = bits[: groups[i].topic_count - 1]
        spans.append(
            Span(start, stop, sizes[i], tuple(int.from_bytes(b[at], "little") for b in used))
        )
    return spans


def _gathered(columns: dict[str, Any], order: Rows) -> OrderedLogs:
    offsets = columns["data"].offsets
    return OrderedLogs(
        order,
        {name: pick(columns[name], order) for name in (*_POSITION, "address")},
        tuple(columns[name].values.take(order, axis=0) for name in ("topic1", "topic2", "topic3")),
        columns["data"].values,
        offsets.take(order),
        offsets[1:].take(order),
    )


def _decode_group(
    group: Group, logs: OrderedLogs, span: Span, refusals: list[Refusal]
) -> list[Part]:
    """The parts that the claims on a group give; adds what should have been taken to `refusals`.

    A claim on certain addresses means those logs: each that it refuses is reported. A claim on
    every address reports only the logs that no claim at all takes.
    """
    parts: list[Part] = []
    tried: list[tuple[Picked, Rows]] = []
    missed: Refusal | None = None
    for claim in group.claims:
        mine: Picked = span
        if claim.addresses is not None:
            held = claim.addresses.holds(pick(logs.columns["address"], span))
            mine = np.flatnonzero(held) + span.start
        if not count(mine):
            continue
        taken, rest, codes = _decode_claim(claim, logs, mine)
        parts += taken
        tried.append((mine, rest))
        if len(rest) and claim.addresses is not None:
            refusals.append(Refusal(group, claim, rest, codes))
        elif len(rest):
            missed = missed or Refusal(group, claim, rest, codes)
    if missed is not None:
        lost = np.ones(len(missed.logs), np.bool_)
        for mine, rest in tried:
            lost &= ~np.isin(missed.logs, places(mine)) | np.isin(missed.logs, rest)
        refusals.append(replace(missed, logs=missed.logs[lost], codes=missed.codes[lost]))
    return parts


def _decode_claim(
    claim: Claim, logs: OrderedLogs, picked: Picked
) -> tuple[list[Part], Rows, Codes]:
    """Try the claim's layouts in turn; returns what was taken, and what was refused and why."""
    if not claim.layouts:
        rest = places(picked)
        return [], rest, np.full(len(rest), Reason.TOPICS, np.int16)
    parts: list[Part] = []
    for layout in claim.layouts:
        part, rest, codes = decode_layout(layout, logs, picked)
        if part is not None:
            parts.append(part)
        if not len(rest):
            break
        picked = rest
    return parts, rest, codes


def _block(name: str, parts: list[Part], logs: OrderedLogs) -> ColumnBlock:
    """A table's rows in the order of the chain."""
    first = parts[0]
    if len(parts) == 1:
        rows, picked, parameters = first.rows, first.logs, first.columns
        sub_index = np.zeros(rows, np.uint32) if first.sub_index is None else first.sub_index
    else:
        rows = sum(part.rows for part in parts)
        unsorted = np.concatenate([places(part.logs) for part in parts])
        in_chain = logs.order[unsorted].argsort(kind="stable")
        picked = unsorted[in_chain]
        parameters = [_joined(parts, i, in_chain) for i in range(len(first.columns))]
        subs = [
            np.zeros(part.rows, np.uint32) if part.sub_index is None else part.sub_index
            for part in parts
        ]
        sub_index = np.concatenate(subs)[in_chain]
    block: dict[str, Column] = {column: pick(logs.columns[column], picked) for column in _POSITION}
    block["sub_index"] = sub_index
    block["address"] = pick(logs.columns["address"], picked)
    block.update(zip(first.layout.columns, parameters, strict=True))
    return ColumnBlock(name, rows, block)


def _joined(parts: list[Part], position: int, in_chain: Rows) -> Column:
    """A parameter's column over all parts, in the order of the chain."""
    kind = parse_kind(_row_kind(parts[0].layout, position))
    return take(kind, concat(kind, [part.columns[position] for part in parts]), in_chain)


def _row_kind(layout: Layout, position: int) -> str:
    kind = layout.kinds[position]
    return kind[1:-1] if position in layout.batch else kind
