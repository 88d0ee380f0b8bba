"""Logs that no layout took in, rows of ``decode_failures`` with their reasons out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from processors.abi import Claim, Group, Rows
from processors.abi_tails import EXPANSION_MAX, Reason
from processors.decode_layout import Codes, OrderedLogs, pick
from schemas.columns import Column, ColumnBlock, Ragged, from_python, take
from schemas.events import DECODE_FAILURES
from schemas.kinds import parse_kind
from schemas.tables import LOG_POSITION


@dataclass(frozen=True, slots=True)
class Refusal:
    """Logs that a claim's layouts did not take."""

    group: Group
    """Their group."""
    claim: Claim
    """The claim; the codes speak of its last layout."""
    logs: Rows
    """The logs, as places in group order."""
    codes: Codes
    """Why."""


def failure_rows(refusals: list[Refusal], logs: OrderedLogs, topic0: Column) -> ColumnBlock:
    """A row of ``decode_failures`` for each refused log: its first refusal."""
    found: dict[int, tuple[Refusal, int]] = {}
    for refusal in refusals:
        for log, code in zip(refusal.logs.tolist(), refusal.codes.tolist(), strict=True):
            found.setdefault(log, (refusal, code))
    unsorted = np.array(list(found), np.int64)
    picked = unsorted[logs.order[unsorted].argsort()]
    sizes = logs.ends[picked] - logs.starts[picked]
    told = [(*found[log], size) for log, size in zip(picked.tolist(), sizes.tolist(), strict=True)]
    labels = [_label(refusal.claim, code) for refusal, code, _ in told]
    counts = [refusal.group.topic_count for refusal, _, _ in told]
    columns: dict[str, Column] = {
        spec.name: pick(logs.columns[spec.name], picked) for spec in LOG_POSITION
    }
    columns["sub_index"] = np.zeros(len(picked), np.uint32)
    columns["address"] = logs.columns["address"][picked]
    columns["topic0"] = take(parse_kind("?bytes32"), topic0, logs.order[picked])
    columns["topic_count"] = np.array(counts, np.uint8)
    columns["data_bytes"] = sizes.astype(np.uint32)
    columns["layout"] = _strings(labels)
    columns["reason"] = _strings([_reason(*entry) for entry in told])
    return ColumnBlock(DECODE_FAILURES.name, len(picked), columns)


def _strings(values: list[str]) -> Ragged:
    column = from_python(parse_kind("string"), values)
    assert isinstance(column, Ragged)
    return column


def _label(claim: Claim, code: int) -> str:
    return claim.label if code & 15 == Reason.TOPICS else claim.layouts[-1].label


def _reason(refusal: Refusal, code: int, size: int) -> str:
    """Why a log was refused: a word to group by, a colon, and the details."""
    reason = Reason(code & 15)
    if reason is Reason.TOPICS:
        return f"topics: no layout of {refusal.group.event} has {refusal.group.topic_count} topics"
    layout = refusal.claim.layouts[-1]
    parameters = layout.event.parameters
    parameter = parameters[code >> 4] if parameters else None
    name = f"{parameter.name or 'unnamed'} ({parameter.type.text})" if parameter else ""
    if reason is Reason.SHORT:
        if size < layout.head_bytes:
            return f"short: {size} bytes of data where {layout.head_bytes} are needed"
        return f"short: the data ends before {name} does"
    return {
        Reason.VALUE: f"value: bits beyond {name} are set",
        Reason.POINTER: f"pointer: {name} points out of the data or into the heads",
        Reason.LENGTH: f"length: {name} is longer than the data",
        Reason.PADDING: f"padding: bytes after {name} are not zero",
        Reason.UTF8: f"utf8: {name} is not UTF-8",
        Reason.EXPANSION: f"expansion: {name} decodes to over {EXPANSION_MAX} times its data",
        Reason.BATCH: f"batch: {name} differs in length from the batch's other arrays",
    }[reason]
