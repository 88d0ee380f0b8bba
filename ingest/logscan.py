"""JSON arrays of logs in, their columns out, without an object for any of them.

A node writes all logs alike: the same keys in the same order, and between two values the same
characters. Those are learnt from the first log; then every byte of the text is either compared
with them or decoded as a value, for all logs at once. Text that is not so regular is no error
here: it is read the slower way (see ingest/wire.py), which names what is wrong with it.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.columns import Bytes, Nullable, Ragged

Places = npt.NDArray[np.int64]
"""Positions in the text, one a log."""

TOPICS_MAX = 4
_FIXED_DIGITS = {"address": 40, "blockHash": 64, "transactionHash": 64}
_QUANTITIES = ("blockNumber", "transactionIndex", "logIndex")
_NEEDED = frozenset({*_FIXED_DIGITS, *_QUANTITIES, "topics", "data"})
_QUANTITY_DIGITS_MAX = 8
_TOPIC_SIZE = 69
"""Characters of a topic: quotes, 0x, 64 digits, and the comma or bracket behind it."""
_STRING = re.compile(rb'"([^"\\]*)"(:?)')
_NO_DIGIT = 0x80

_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


class _Irregular(Exception):
    """The text is not as regular as its first log promised; it never leaves this module."""


@dataclass(frozen=True, slots=True)
class ScannedLogs:
    """Logs of several JSON arrays, one row a log, as they came."""

    counts: npt.NDArray[np.int64]
    """Number of logs of each array."""
    address: Bytes
    """uint8[n, 20]."""
    topics: tuple[Nullable, ...]
    """The columns topic0 … topic3."""
    data: Ragged
    """The logs' data."""
    block_hash: Bytes
    """uint8[n, 32], as the node says."""
    transaction_hash: Bytes
    """uint8[n, 32], as the node says."""
    block_number: npt.NDArray[np.int64]
    """Heights, as the node says."""
    transaction_index: npt.NDArray[np.int64]
    """Positions of transactions, as the node says."""
    log_index: npt.NDArray[np.int64]
    """Positions of logs, as the node says."""

    @property
    def count(self) -> int:
        """Number of logs."""
        return len(self.address)


def scan_logs(arrays: Sequence[msgspec.Raw | bytes]) -> ScannedLogs | None:
    """Read JSON arrays of logs.

    Parameters
    ----------
    arrays : sequence of msgspec.Raw or bytes
        Valid JSON each: arrays of logs, as eth_getLogs and receipts have them.

    Returns
    -------
    ScannedLogs or None
        None where there is no log, one is not written like the first, or one is removed; never
        other values than `ingest.wire.decode_logs` and `ingest.hexcolumns` would give.
    """
    text = b",".join([memoryview(array)[1:-1] for array in arrays if len(array) > 2]) + b","
    try:
        scan = _Scan(text)
        columns = scan.columns()
    except (_Irregular, ValueError, IndexError):
        return None
    # An array's text is its body and the comma behind it; an empty one has neither.
    sizes = np.array([len(array) - 1 for array in arrays], np.int64)
    sizes[sizes <= 1] = 0
    counts = np.diff(np.searchsorted(scan.starts, np.cumsum(sizes)), prepend=0)
    return ScannedLogs(
        counts=counts,
        address=columns["address"],
        topics=columns["topics"],
        data=columns["data"],
        block_hash=columns["blockHash"],
        transaction_hash=columns["transactionHash"],
        block_number=columns["blockNumber"],
        transaction_index=columns["transactionIndex"],
        log_index=columns["logIndex"],
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands between the values of a log, learnt from one of them."""

    keys: tuple[str, ...]
    """Keys whose values are strings, and ``topics``, in the order of the text."""
    before: tuple[bytes, ...]
    """What stands before each such value, up to the 0x of a hex value or the bracket of topics."""
    end: bytes
    """What stands behind the last value, with the comma after the log."""


def _layout(log: bytes) -> _Layout:
    """The layout of a log's text, which ends with the comma behind it."""
    keys: list[str] = []
    before: list[bytes] = []
    names: list[str] = []
    at, key, in_topics, prefixed = 0, "", False, True
    for found in _STRING.finditer(log):
        if found.group(2):
            if in_topics:
                at, in_topics = log.rindex(b"]", at, found.start()), False
            key = found.group(1).decode()
            names.append(key)
            if key == "topics":
                begin = log.index(b"[", found.end()) + 1
                keys.append(key)
                before.append(log[at:begin])
                at, in_topics = begin, True
        elif not in_topics:
            # Values that are used are hex: their 0x is part of what stands before them.
            start = found.start() + (3 if key in _NEEDED else 1)
            keys.append(key)
            before.append(log[at:start])
            prefixed = prefixed and (key not in _NEEDED or before[-1].endswith(b'"0x'))
            at = found.end() - 1
    if in_topics:
        at = log.rindex(b"]", at)
    removed = log.count(b'"removed":') - log.count(b'"removed":false')
    known = prefixed and _NEEDED.issubset(keys)
    if not known or removed or len({*names}) < len(names) or len({*keys}) < len(keys):
        raise _Irregular
    return _Layout(tuple(keys), tuple(before), log[at:])


class _Scan:
    """One pass over the text of many logs, a comma behind each."""

    def __init__(self, text: bytes) -> None:
        codes: Bytes = np.frombuffer(text, np.uint8)
        self.text = text
        self.starts: Places = np.flatnonzero(codes == ord("{"))
        if not len(self.starts) or self.starts[0] or b"\\" in text:
            raise _Irregular
        self.quotes: Places = np.flatnonzero(codes == ord('"'))
        second = int(self.starts[1]) if len(self.starts) > 1 else len(text)
        self.layout = _layout(text[:second])

    def rows(self, at: Places, width: int) -> Bytes:
        """The `width` characters from each place on; IndexError beyond the end."""
        # One-byte strides: each place is the start of an item, taken by a single copy.
        shape = (max(len(self.text) - width + 1, 0),)
        items: Any = np.ndarray(shape, f"V{width}", self.text, strides=(1,))
        rows: Bytes = items[at].view(np.uint8).reshape(len(at), width)
        return rows

    def skip(self, at: Places, literal: bytes) -> Places:
        """The places behind `literal`, which must stand at each of `at`."""
        if self.rows(at, len(literal)).tobytes() != literal * len(at):
            raise _Irregular
        return at + len(literal)

    def columns(self) -> dict[str, Any]:
        """What each needed key holds."""
        layout = self.layout
        first = np.searchsorted(self.quotes, self.starts)
        strings = np.diff(first, append=len(self.quotes)) // 2
        texts = (*layout.before, layout.end)
        topics: Places = strings - sum(text.count(b'"') for text in texts) // 2
        if int(topics.min()) < 0 or int(topics.max()) > TOPICS_MAX:
            raise _Irregular
        at, quote = self.starts, first - 1
        columns: dict[str, Any] = {}
        for key, before in zip(layout.keys, layout.before, strict=True):
            at, quote = self.skip(at, before), quote + before.count(b'"')
            if key == "topics":
                columns[key] = self.topics(at, topics)
                at = at + np.where(topics > 0, _TOPIC_SIZE * topics - 1, 0)
                quote = quote + 2 * topics
                continue
            end = self.quotes[quote + 1]
            if key in _FIXED_DIGITS:
                columns[key] = self.fixed(at, end, _FIXED_DIGITS[key])
            elif key in _QUANTITIES:
                columns[key] = self.quantities(at, end)
            elif key == "data":
                columns[key] = self.data(at, end)
            elif not np.array_equal(self.quotes[quote], at - 1):
                raise _Irregular
            at = end
        ends = self.skip(at, layout.end)
        if int(ends[-1]) != len(self.text) or not np.array_equal(ends[:-1], self.starts[1:]):
            raise _Irregular
        return columns

    def fixed(self, at: Places, end: Places, digits: int) -> Bytes:
        """Values of so many digits each."""
        if not (end - at == digits).all():
            raise _Irregular
        return _decode_digits(self.rows(at, digits))

    def quantities(self, at: Places, end: Places) -> npt.NDArray[np.int64]:
        """The values of quantities."""
        sizes = end - at
        width = int(sizes.max())
        if int(sizes.min()) < 1 or width > _QUANTITY_DIGITS_MAX:
            raise _Irregular
        digits = _DIGITS[self.rows(end - width, width)].astype(np.int64)
        values = np.zeros(len(at), np.int64)
        for place in range(width):
            digit = digits[:, place] * (sizes >= width - place)
            values = values << 4 | digit
            if int(digit.max()) == _NO_DIGIT:
                raise _Irregular
        return values

    def data(self, at: Places, end: Places) -> Ragged:
        """Values of any length."""
        sizes = end - at
        if int(sizes.min()) < 0 or (sizes & 1).any():
            raise _Irregular
        text = self.text
        pairs = zip(at.tolist(), end.tolist(), strict=True)
        decoded = unhexlify(b"".join([text[start:stop] for start, stop in pairs]))
        offsets = np.zeros(len(at) + 1, np.int64)
        np.cumsum(sizes >> 1, out=offsets[1:])
        return Ragged(offsets, np.frombuffer(decoded, np.uint8))

    def topics(self, at: Places, counts: npt.NDArray[np.int64]) -> tuple[Nullable, ...]:
        """The topic columns of logs whose topics begin at `at`."""
        starts = np.cumsum(counts) - counts
        total = int(counts.sum())
        inner = np.arange(total) - np.repeat(starts, counts)
        cells = self.rows(np.repeat(at, counts) + _TOPIC_SIZE * inner, _TOPIC_SIZE)
        behind = np.where(inner + 1 < np.repeat(counts, counts), ord(","), ord("]"))
        framed = cells[:, [0, 1, 2, 67]].tobytes() == b'"0x"' * total
        if not framed or not (cells[:, 68] == behind).all():
            raise _Irregular
        # The row after the last is what stands where a topic is absent.
        padded = np.zeros((total + 1, 32), np.uint8)
        padded[:-1] = _decode_digits(cells[:, 3:67])
        columns = []
        for place in range(TOPICS_MAX):
            valid = counts > place
            taken = np.where(valid, starts + place, total)
            columns.append(Nullable(valid, padded.take(taken, axis=0)))
        return tuple(columns)


def _decode_digits(digits: Bytes) -> Bytes:
    """The bytes that rows of hex digits say; ValueError where one is no digit."""
    decoded = np.frombuffer(unhexlify(np.ascontiguousarray(digits).data), np.uint8)
    return decoded.reshape(len(digits), digits.shape[1] >> 1)
