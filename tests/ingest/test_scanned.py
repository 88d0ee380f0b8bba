"""What is scanned from JSON of blocks and receipts is what is read object by object, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.scanned import scan_bodies
from ingest.verify import ProvenSegment, prove_scanned, prove_segment
from ingest.wire import decode_block, decode_receipts, decode_unread_block
from schemas.errors import HeadraceError
from schemas.tables import Verification
from tests.ingest.both_ways import outcome, shown
from tests.ingest.real_blocks import (
    busy_block,
    devchain_payload,
    expected_blocks,
    load_payload,
    needs_chaindata,
)

Json = dict[str, Any]
ABSENT: Any = object()
"""Marks a field to be left out."""
REAL = [
    row.id
    for row in expected_blocks()
    if row.logs and load_payload(row.chain, row.number)[1] is not None
]


REAL_LEFT = ["cronos-131465"]
"""Those that have to be read object by object: fewer receipts than transactions."""


def compact(value: object) -> bytes:
    """JSON as nodes write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def read_both_ways(block: bytes, receipts: bytes) -> bool:
    """Hold both readings against each other; whether there is a quick one."""
    unread = decode_unread_block(block)
    assert unread is not None
    scanned = scan_bodies([unread], [receipts])
    if scanned is None:
        return False
    for level in (Verification.off, Verification.full):
        quick = outcome(lambda level=level: prove_scanned([unread], scanned, level))
        slow = outcome(lambda level=level: read_slowly(block, receipts, level))
        assert shown(quick) == shown(slow)
    return True


def read_slowly(block: bytes, receipts: bytes, level: Verification) -> ProvenSegment:
    """Object by object."""
    whole, parts = decode_block(block), decode_receipts(receipts)
    assert whole is not None
    assert parts is not None
    return prove_segment([whole], [parts], level)


def real(name: str) -> tuple[bytes, bytes]:
    """JSON of a real block and its receipts."""
    chain, number = name.split("-")
    block, receipts = load_payload(chain, int(number))
    return compact(block), compact(receipts)


@needs_chaindata
def test_real_blocks_are_scanned() -> None:
    left = [name for name in REAL if not read_both_ways(*real(name))]
    assert left == REAL_LEFT


def changed(change: Callable[[Json, list[Json]], None]) -> tuple[bytes, bytes]:
    """A devchain block and its receipts, changed."""
    block, receipts = devchain_payload(busy_block())
    change(block, receipts)
    return compact(block), compact(receipts)


def in_transaction(**fields: Any) -> Callable[[Json, list[Json]], None]:
    """Give the last transaction other fields; `ABSENT` leaves one out."""

    def change(block: Json, receipts: list[Json]) -> None:
        block["transactions"][-1] = with_fields(block["transactions"][-1], fields)

    return change


def in_receipt(**fields: Any) -> Callable[[Json, list[Json]], None]:
    """Give the last receipt other fields; `ABSENT` leaves one out."""

    def change(block: Json, receipts: list[Json]) -> None:
        receipts[-1] = with_fields(receipts[-1], fields)

    return change


def with_fields(payload: Json, fields: Json) -> Json:
    """The payload with other fields."""
    return {key: value for key, value in (payload | fields).items() if value is not ABSENT}


def in_all(change: Callable[[Json], Json]) -> Callable[[Json, list[Json]], None]:
    """Change every transaction and receipt."""

    def change_all(block: Json, receipts: list[Json]) -> None:
        block["transactions"] = [change(transaction) for transaction in block["transactions"]]
        receipts[:] = [change(receipt) for receipt in receipts]

    return change_all


def logs_amid(payload: Json) -> Json:
    """The receipt with its logs before other fields, as some nodes write it."""
    logs = payload.pop("logs", None)
    if logs is None:
        return payload
    fields = list(payload.items())
    return dict([*fields[:4], ("logs", logs), *fields[4:]])


REGULAR: dict[str, Callable[[Json, list[Json]], None]] = {
    "as it is": lambda block, receipts: None,
    "another order of keys": in_all(lambda payload: dict(reversed(payload.items()))),
    "logs amid the fields": in_all(logs_amid),
    "one of another layout": in_transaction(more="anything", gas="0x0005"),
    "fields that are null": in_transaction(to=None, maxFeePerGas=None, chainId=None),
    "an absent type": in_transaction(type=ABSENT),
    "parity and v differ": in_transaction(v="0x5", yParity="0x1"),
    "a flag": in_transaction(isSystemTx=True),
    "capital digits": in_transaction(value="0xABCDEF"),
    "an access list": in_transaction(
        accessList=[{"address": "0x" + "ab" * 20, "storageKeys": ["0x" + "0c" * 32] * 3}]
    ),
    "an empty access list in an entry": in_transaction(
        accessList=[{"address": "0x" + "ab" * 20, "storageKeys": []}]
    ),
    "blobs": in_transaction(blobVersionedHashes=["0x" + "01" * 32] * 2),
    "no lists": in_all(
        lambda payload: {
            key: value
            for key, value in payload.items()
            if key not in ("accessList", "blobVersionedHashes", "authorizationList")
        }
    ),
    "a root and no status": in_receipt(root="0x" + "ab" * 32, status=ABSENT),
    "an empty root": in_receipt(root="0x"),
    "no bloom": in_receipt(logsBloom=ABSENT),
    "no types": in_all(lambda payload: with_fields(payload, {"type": ABSENT})),
    "more of a receipt": in_receipt(l1Fee="0x123456789abcdef0123", l1FeeScalar="0.684", more=None),
}


@pytest.mark.parametrize("change", REGULAR.values(), ids=REGULAR)
def test_what_is_regular_is_scanned(change: Callable[[Json, list[Json]], None]) -> None:
    assert read_both_ways(*changed(change))


IRREGULAR: dict[str, Callable[[Json, list[Json]], None]] = {
    "no transactions": lambda block, receipts: block.update(transactions=[]),
    "hashes": lambda block, receipts: block.update(
        transactions=[transaction["hash"] for transaction in block["transactions"]]
    ),
    "no receipts": lambda block, receipts: receipts.clear(),
    "a receipt without gas": in_receipt(gasUsed=ABSENT),
    "a receipt less": lambda block, receipts: receipts.pop() and None,
    "no logs": in_all(lambda payload: payload | ({"logs": []} if "logs" in payload else {})),
    "an escape": in_transaction(more="\\"),
    "something nested": in_transaction(more={"a": "0x1"}),
    "a nested list": in_transaction(more=["0x1"]),
    "an access list of texts": in_transaction(accessList=["0x1"]),
    "an access list with a bad key": in_transaction(
        accessList=[{"address": "0x" + "ab" * 20, "storageKeys": ["0x12"]}]
    ),
    "a flag for a list": in_transaction(accessList=True),
    "a list for a flag": in_transaction(isSystemTx=[]),
    "a number for a text": in_transaction(nonce=5),
    "no nonce": in_transaction(nonce=ABSENT),
    "no sender": in_transaction(**{"from": ABSENT}),
    "no prefix": in_transaction(value="12"),
    "an empty quantity": in_transaction(value="0x"),
    "a quantity too large": in_transaction(gas="0x1" + "0" * 16),
    "a quantity that is none": in_transaction(gas="0x5g"),
    "a type too large": in_transaction(type="0x100"),
    "many zeros": in_transaction(gas="0x" + "0" * 20),
    "odd input": in_transaction(input="0x123"),
    "a short address": in_transaction(to="0x12"),
    "another block": in_transaction(blockHash="0x" + "ab" * 32),
    "another place": in_transaction(transactionIndex="0x0"),
    "a receipt of another block": in_receipt(blockHash="0x" + "ab" * 32),
    "a receipt of another height": in_receipt(blockNumber="0x7"),
    "a receipt of another transaction": in_receipt(transactionHash="0x" + "ab" * 32),
    "a receipt of another place": in_receipt(transactionIndex="0x0"),
    "a receipt of another type": in_receipt(type="0x7f"),
    "a short bloom": in_receipt(logsBloom="0x12"),
    "logs that are null": in_receipt(logs=None),
    "logs within logs": in_receipt(logs=[{"logs": []}]),
}


@pytest.mark.parametrize("change", IRREGULAR.values(), ids=IRREGULAR)
def test_what_is_irregular_is_left_to_the_slower_way(
    change: Callable[[Json, list[Json]], None],
) -> None:
    assert not read_both_ways(*changed(change))


def test_spaces_are_left_to_the_slower_way() -> None:
    block, receipts = devchain_payload(busy_block())
    assert not read_both_ways(json.dumps(block).encode(), compact(receipts))
    assert not read_both_ways(compact(block), json.dumps(receipts).encode())
    assert not read_both_ways(compact(block), b" " + compact(receipts))


def test_a_key_twice_is_left_to_the_slower_way() -> None:
    block, receipts = changed(lambda block, receipts: None)
    assert not read_both_ways(block.replace(b'"nonce":"0x', b'"gas":"0x1","nonce":"0x'), receipts)
    assert not read_both_ways(block, receipts.replace(b'"gasUsed"', b'"type":"0x1","gasUsed"', 1))


BLOCK, RECEIPTS = changed(lambda block, receipts: None)
BODY = BLOCK.index(b'"transactions":[') + len(b'"transactions":[')
PIECES = (b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0x", b"f", b"G", b" ", b"null", b"0")


def pieces(text: bytes) -> st.SearchStrategy[bytes]:
    """What is put in the place of a part of a text: a character, or another part."""
    parts = st.tuples(st.integers(0, len(text) - 1), st.integers(0, 400))
    return st.one_of(
        st.sampled_from(PIECES), parts.map(lambda part: text[part[0] : part[0] + part[1]])
    )


@settings(max_examples=400)
@given(start=st.integers(BODY, len(BLOCK) - 1), cut=st.integers(0, 80), piece=pieces(BLOCK[BODY:]))
@example(start=BODY, cut=0, piece=b"")
def test_damaged_transactions_are_read_alike_or_not_at_all(
    start: int, cut: int, piece: bytes
) -> None:
    text = BLOCK[:start] + piece + BLOCK[start + cut :]
    if not is_json(text):
        return
    try:
        decode_unread_block(text)
    except HeadraceError:
        return
    read_both_ways(text, RECEIPTS)


@settings(max_examples=400)
@given(start=st.integers(0, len(RECEIPTS) - 1), cut=st.integers(0, 80), piece=pieces(RECEIPTS))
@example(start=0, cut=0, piece=b"")
def test_damaged_receipts_are_read_alike_or_not_at_all(start: int, cut: int, piece: bytes) -> None:
    text = RECEIPTS[:start] + piece + RECEIPTS[start + cut :]
    if is_json(text):
        read_both_ways(BLOCK, text)


def is_json(text: bytes) -> bool:
    """Whether it is what `msgspec.Raw` may hold."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
