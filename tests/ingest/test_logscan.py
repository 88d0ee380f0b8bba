"""What is scanned from JSON of logs is what is read from it log by log, or nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.hexcolumns import Rows, hex_column
from ingest.logscan import ScannedLogs, scan_logs
from ingest.wire import Log, decode_logs
from schemas.columns import to_buffers
from schemas.errors import HeadraceError
from schemas.kinds import parse_kind
from tests.ingest.real_blocks import (
    busy_block,
    devchain_payload,
    expected_blocks,
    load_payload,
)

Json = dict[str, Any]
KINDS = {
    "address": "bytes20",
    "data": "bytes",
    "block_hash": "bytes32",
    "block_number": "u64",
    "transaction_hash": "bytes32",
    "transaction_index": "u32",
    "log_index": "u32",
}
TOPIC = parse_kind("?bytes32")
REAL = [
    (row.chain, row.number)
    for row in expected_blocks()
    if row.logs and load_payload(row.chain, row.number)[1] is not None
]


def compact(value: object) -> bytes:
    """JSON as nodes write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def devchain_logs() -> list[list[Json]]:
    """The logs of a devchain block, by receipt; some receipts have none."""
    return [receipt["logs"] for receipt in devchain_payload(busy_block())[1]]


def read_one_by_one(logs: list[Log]) -> dict[str, Any]:
    """Buffers of the columns of logs, as ingest/build_logs.py makes them; errors as there."""
    rows = Rows([""], [""], [len(logs)])
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        texts = [getattr(log, name) for log in logs]
        column = hex_column(parse_kind(kind), texts, name, rows)
        found[name] = to_buffers(parse_kind(kind), column)
    for place in range(4):
        texts = [log.topics[place] if place < len(log.topics) else None for log in logs]
        found[f"topic{place}"] = to_buffers(TOPIC, hex_column(TOPIC, texts, "topic", rows))
    return found


def scanned_buffers(scanned: ScannedLogs) -> dict[str, Any]:
    """The same of scanned logs."""
    found: dict[str, Any] = {}
    for name, text in KINDS.items():
        kind, column = parse_kind(text), getattr(scanned, name)
        numbers = kind.shape == "number"
        found[name] = to_buffers(kind, column.astype(kind.dtype) if numbers else column)
    for place, column in enumerate(scanned.topics):
        found[f"topic{place}"] = to_buffers(TOPIC, column)
    return found


@pytest.mark.parametrize(("chain", "number"), REAL)
def test_logs_of_real_blocks(chain: str, number: int) -> None:
    receipts = load_payload(chain, number)[1]
    assert receipts is not None
    arrays = [compact(receipt["logs"]) for receipt in receipts]
    scanned = scan_logs(arrays)
    assert scanned is not None
    logs = [log for array in arrays for log in decode_logs(array) or []]
    assert scanned_buffers(scanned) == read_one_by_one(logs)
    assert scanned.counts.tolist() == [len(receipt["logs"]) for receipt in receipts]


@pytest.mark.parametrize("reverse", [False, True], ids=["as written", "keys reversed"])
def test_any_order_of_keys(reverse: bool) -> None:
    groups = devchain_logs()
    if reverse:
        groups = [[dict(reversed(log.items())) for log in group] for group in groups]
    scanned = scan_logs([compact(group) for group in groups])
    assert scanned is not None
    assert scanned.counts.tolist() == list(map(len, groups))
    flat = [log for group in groups for log in group]
    decoded = decode_logs(compact(flat))
    assert decoded is not None
    assert scanned_buffers(scanned) == read_one_by_one(decoded)


def altered(**fields: Any) -> list[Json]:
    """Three logs; the last has other fields, None for absent ones."""
    logs = [dict(log) for group in devchain_logs() for log in group][:3]
    logs[-1] = {key: value for key, value in (logs[-1] | fields).items() if value is not None}
    return logs


IRREGULAR: dict[str, bytes] = {
    "no logs": b"[]",
    "null": b"null",
    "a text": b'"0x"',
    "spaces": json.dumps(altered()).encode(),
    "a log is removed": compact(altered(removed=True)),
    "all are removed": compact([log | {"removed": True} for log in altered()]),
    "removed is null": compact([log | {"removed": None} for log in altered()]),
    "another order of keys": compact([dict(reversed(altered()[0].items())), *altered()[1:]]),
    "a field is missing": compact(altered(data=None)),
    "one more field": compact(altered(more="0x1")),
    "a list more": compact([log | {"more": ["0x1", "0x2"]} for log in altered()]),
    "an object more": compact([log | {"more": {"a": "0x1"}} for log in altered()]),
    "escapes": compact(altered(data="0x12")).replace(b'"0x12"', b'"0x1\\u0032"'),
    "a key twice": b"[" + compact(altered()[0])[:-1] + b',"data":null}]',
    "no prefix": compact([log | {"address": "12" + log["address"][2:]} for log in altered()]),
    "five topics": compact(altered(topics=["0x" + "ab" * 32] * 5)),
    "a short topic": compact(altered(topics=["0x" + "ab" * 31])),
    "topics are null": compact([log | {"topics": None} for log in altered()]),
    "topics in a list": compact([log | {"topics": [[]]} for log in altered()]),
    "odd data": compact(altered(data="0x123")),
    "an empty number": compact(altered(logIndex="0x")),
    "a negative number": compact(altered(logIndex="0x-1")),
    "a large number": compact(altered(blockNumber="0x" + "1" * 9)),
    "digits that are none": compact(altered(transactionHash="0x" + "0g" * 32)),
}


@pytest.mark.parametrize("text", IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_text_is_left_to_the_slower_way(text: bytes) -> None:
    assert scan_logs([text]) is None


def test_capital_digits_are_digits() -> None:
    text = compact(altered(logIndex="0xAb", address="0x" + "Ab" * 20))
    scanned, decoded = scan_logs([text]), decode_logs(text)
    assert scanned is not None
    assert decoded is not None
    assert scanned_buffers(scanned) == read_one_by_one(decoded)


TEXT = compact([log for group in devchain_logs() for log in group][:4])
PIECES = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0x",
    b"f",
    b"G",
    b" ",
    b"null",
    b"true",
)


@settings(max_examples=600)
@given(
    start=st.integers(0, len(TEXT) - 1),
    cut=st.integers(0, 80),
    piece=st.one_of(
        st.sampled_from(PIECES),
        st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 400)).map(
            lambda part: TEXT[part[0] : part[0] + part[1]]
        ),
    ),
)
@example(start=0, cut=0, piece=b"")
def test_damaged_text_is_read_alike_or_not_at_all(start: int, cut: int, piece: bytes) -> None:
    text = TEXT[:start] + piece + TEXT[start + cut :]
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    scanned = scan_logs([text])
    if scanned is None:
        return
    try:
        logs = decode_logs(text) or []
        expected = read_one_by_one(logs)
    except HeadraceError as error:
        raise AssertionError(f"scanned what is refused: {error}") from error
    assert scanned_buffers(scanned) == expected
    assert scanned.counts.tolist() == [len(logs)]
    assert not any(log.removed for log in logs)
