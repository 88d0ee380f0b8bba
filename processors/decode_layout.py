"""Logs in group order and one layout in, typed columns and refusals out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from processors.abi import Layout, Rows
from processors.abi_tails import Reason, Tails
from processors.abi_words import Mask, take_bytes
from schemas.columns import Bytes, Column, Nullable, take
from schemas.kinds import parse_kind


@dataclass(frozen=True, slots=True)
class Span:
    """All logs of a group: a run of places in group order, with what is known of the whole run."""

    start: int
    """First place."""
    stop: int
    """The place after the last."""
    data_bytes_min: int
    """Size of the smallest data."""
    topic_bits: tuple[int, ...]
    """The bits that are set in any topic1, any topic2 and so on, as little-endian numbers."""


Picked: TypeAlias = Span | Rows
"""Some logs by their places in group order, rising."""

Codes: TypeAlias = npt.NDArray[np.int16]
"""Per log: 0, or ``parameter * 16 + Reason``."""

AnyScalar = TypeVar("AnyScalar", bound=np.generic)

_NO_CODES = np.zeros(0, np.int16)
_NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class OrderedLogs:
    """The logs of known events, gathered once so that each group of them is a slice."""

    order: Rows
    """Each log's position in the segment."""
    columns: dict[str, Any]
    """The columns that an event's row copies from its log."""
    topics: tuple[Bytes, ...]
    """uint8[n, 32] for topic1, topic2 and topic3; zeros where absent."""
    buffer: Bytes
    """The data of all logs of the segment, one after the other."""
    starts: Rows
    """Where each log's data begins in it."""
    ends: Rows
    """Where it ends."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that one layout gave."""

    layout: Layout
    """The layout."""
    rows: int
    """How many."""
    logs: Picked
    """The log of each row."""
    columns: list[Column]
    """The parameters' columns."""
    sub_index: npt.NDArray[np.uint32] | None
    """Position in a batch; None where every log gave one row."""


def count(picked: Picked) -> int:
    """How many logs are picked."""
    return picked.stop - picked.start if isinstance(picked, Span) else len(picked)


def places(picked: Picked) -> Rows:
    """The places in group order that are picked."""
    return np.arange(picked.start, picked.stop) if isinstance(picked, Span) else picked


def pick(column: Any, picked: Picked) -> Any:
    """The rows of these logs, of a column in group order; those of a Span are not copied."""
    if isinstance(column, Nullable):
        return Nullable(pick(column.valid, picked), pick(column.values, picked))
    if isinstance(picked, Span):
        return column[picked.start : picked.stop]
    return column.take(picked, axis=0)


def decode_layout(
    layout: Layout, logs: OrderedLogs, picked: Picked
) -> tuple[Part | None, Rows, Codes]:
    """The rows of one layout, and the logs that it refuses, with the reasons."""
    refused, codes = _NO_ROWS, _NO_CODES
    if not isinstance(picked, Span) or picked.data_bytes_min < layout.head_bytes:
        at = places(picked)
        short = logs.ends[at] - logs.starts[at] < layout.head_bytes
        refused, picked = at[short], at[~short]
        codes = np.full(len(refused), Reason.SHORT, np.int16)
        if not len(picked):
            return None, refused, codes
    columns, bad = _parameters(layout, logs, picked)
    if bad is not None:
        at = places(picked)
        refused = np.concatenate([refused, at[bad != 0]])
        rising = refused.argsort()
        refused, codes = refused[rising], np.concatenate([codes, bad[bad != 0]])[rising]
        kept = np.flatnonzero(bad == 0)
        picked = at[kept]
        columns = [
            take(parse_kind(kind), column, kept)
            for kind, column in zip(layout.kinds, columns, strict=True)
        ]
    if layout.batch:
        return _exploded(layout, picked, columns), refused, codes
    return Part(layout, count(picked), picked, columns, None), refused, codes


def _parameters(
    layout: Layout, logs: OrderedLogs, picked: Picked
) -> tuple[list[Column], Codes | None]:
    """The parameters' columns, and per log what is wrong with it (None: nothing with any)."""
    columns: list[Any] = [None] * len(layout.columns)
    bad: Codes | None = None
    wrongs: list[tuple[int, Mask]] = []
    for number, (position, word) in enumerate(layout.topics):
        values = pick(logs.topics[number], picked)
        columns[position] = word.read(values)
        clean = isinstance(picked, Span) and not word.clear & picked.topic_bits[number]
        wrong = None if clean and word.sign_at is None else word.wrong(values)
        if wrong is not None:
            wrongs.append((position * 16 + Reason.VALUE, wrong))
    if layout.words:
        words = take_bytes(logs.buffer, pick(logs.starts, picked), layout.head_bytes)
        _read_words(layout, words, columns, wrongs)
    elif layout.tails:
        bad = _read_tails(layout, logs, picked, columns)
    if layout.batch:
        lengths = [np.diff(columns[position].offsets) for position in layout.batch]
        pairs = zip(layout.batch[1:], lengths[1:], strict=True)
        wrongs += [(i * 16 + Reason.BATCH, other != lengths[0]) for i, other in pairs]
    for code, wrong in wrongs:
        if wrong.any():
            bad = np.zeros(count(picked), np.int16) if bad is None else bad
            bad[wrong & (bad == 0)] = code
    return columns, bad


def _read_words(
    layout: Layout, words: Bytes, columns: list[Any], wrongs: list[tuple[int, Mask]]
) -> None:
    """Fill in the columns of the parameters in the data, every one a word."""
    dirty = bool((words.view("<u8") & layout.clear).any())
    at = 0
    for position, word in layout.words:
        values = words[:, at : at + 32]
        columns[position] = word.read(values)
        at += 32
        if dirty or word.sign_at is not None:
            wrong = word.wrong(values)
            if wrong is not None:
                wrongs.append((position * 16 + Reason.VALUE, wrong))


def _read_tails(
    layout: Layout, logs: OrderedLogs, picked: Picked, columns: list[Any]
) -> Codes | None:
    """Fill in the columns of the parameters in the data; returns what is wrong with which log."""
    tails = Tails(logs.buffer, pick(logs.starts, picked), pick(logs.ends, picked))
    decoded = tails.parameters(tuple(abi_type for _, abi_type in layout.tails))
    positions = [position for position, _ in layout.tails]
    for position, column in zip(positions, decoded, strict=True):
        columns[position] = column
    if not tails.refused.any():
        return None
    renumbered = np.array(positions, np.int16)[tails.refused >> 4] * 16 + (tails.refused & 15)
    return np.where(tails.refused != 0, renumbered, 0).astype(np.int16)


def _exploded(layout: Layout, picked: Picked, columns: list[Any]) -> Part:
    """One row an element of the batch's arrays."""
    offsets = columns[layout.batch[0]].offsets
    logs = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    sub_index = (np.arange(int(offsets[-1])) - offsets[:-1][logs]).astype(np.uint32)
    rows = [
        column.values if i in layout.batch else take(parse_kind(kind), column, logs)
        for i, (kind, column) in enumerate(zip(layout.kinds, columns, strict=True))
    ]
    return Part(layout, len(logs), places(picked)[logs], rows, sub_index)
