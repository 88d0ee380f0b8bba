"""A payload that no column can hold as it is, is refused by name."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from ingest.wire import HEADER_FIELDS, Block, Log, Receipt, Transaction, Withdrawal
from schemas.columns import to_python
from schemas.errors import HeadraceError, Permanent
from schemas.errors_verify import (
    FieldMissing,
    HexMalformed,
    QuantityOutOfRange,
    ReceiptsCountMismatch,
    TopicsTooMany,
)
from schemas.tables import (
    LOGS,
)
from tests.ingest.expected_columns import Json, built_of, bytes_of
from tests.ingest.real_blocks import (
    busy_block,
    devchain_payload,
)

MALFORMED = {
    "no prefix": "12",
    "prefix alone": "0x",
    "odd digits": "0x123",
    "other letters": "0xzz",
    "capital prefix": "0X12",
    "a space": "0x 1",
    "a space before": " 0x12",
    "an underscore": "0x1_2",
    "a sign": "-0x12",
    "a sign after": "0x-1",
    "other digits": "0x\u0661\u0662",
    "two prefixes": "0x0x12",
    "empty": "",
    "a number beyond": "0x1" + "0" * 64,
    "zeros before the prefix": "00x12",
}

NEEDED = {"hash", "number", "parentHash", "timestamp"}
"""The header fields without which no block is stored."""

NOT_STORED = {
    Block: {"(source)", *HEADER_FIELDS} - NEEDED,
    Transaction: {"blockHash", "transactionIndex"},
    Receipt: {
        "transactionHash",
        "transactionIndex",
        "blockHash",
        "blockNumber",
        "logsBloom",
        "type",
        "from",
        "to",
    },
    Log: {"blockHash", "blockNumber", "transactionHash", "transactionIndex"},
    Withdrawal: set(),
}
"""Texts that only name a place or are proven as a whole (ingest/places.py compares them), and
header fields that may be null: tests/ingest/test_other_headers.py."""


def _text_fields(struct: type) -> list[str]:
    names = []
    for field in msgspec.structs.fields(struct):
        options = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        if str in options and field.encode_name not in NOT_STORED[struct]:
            names.append(field.encode_name)
    return names


FIELDS = [(struct, name) for struct in NOT_STORED for name in _text_fields(struct)]


def _field_id(part: Any) -> str:
    return getattr(part, "__name__", part)


VARIABLE = {"input", "data", "extraData"}

FIXED = {
    "hash": 32,
    "parentHash": 32,
    "from": 20,
    "to": 20,
    "address": 20,
    "miner": 20,
    "contractAddress": 20,
    "root": 32,
    "sourceHash": 32,
}


def _with(struct: type, name: str, value: str) -> tuple[Json, list[Json]]:
    """A devchain block in which the second payload of that kind has another text."""
    block, receipts = devchain_payload(busy_block())
    legacy = next(tx for tx in block["transactions"] if tx["type"] == "0x0")
    full = next(receipt for receipt in receipts if receipt["logs"])
    target = {
        Block: block,
        Transaction: legacy,
        Receipt: receipts[1],
        Log: full["logs"][-1],
        Withdrawal: (block.get("withdrawals") or [{}])[-1],
    }[struct]
    target[name] = value
    if name == "yParity":
        legacy["type"] = "0x2"
    return block, receipts


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize(
    ("struct", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part)
)
def test_malformed_hex_is_refused_by_name(struct: type, name: str, malformed: str) -> None:
    value = MALFORMED[malformed]
    if malformed == "odd digits" and name not in {*VARIABLE, *FIXED}:
        value = "0x"
    if name in VARIABLE and malformed in ("prefix alone", "a number beyond"):
        value = "0x1"
    if name == "root" and malformed == "prefix alone":
        value = "0x00"  # "0x" is how some nodes say that there is none.
    payload = _with(struct, name, value)
    with pytest.raises((HexMalformed, QuantityOutOfRange)) as caught:
        built_of([devchain_payload(1), payload])
    error = caught.value
    assert isinstance(error, Permanent)
    place = payload[0]
    if (struct, name) not in {(Block, "number"), (Block, "hash")}:
        assert error.data["number"] == str(int(place["number"], 16))
        assert error.data["hash"] == place["hash"]
    assert error.what_text
    assert error.fix_text


@pytest.mark.parametrize(("short", "long"), [(0, 1), (1, 0)])
def test_neighbours_of_wrong_width_do_not_make_up_for_each_other(short: int, long: int) -> None:
    block, receipts = devchain_payload(busy_block())
    logs = next(receipt["logs"] for receipt in receipts if len(receipt["logs"]) > 1)
    logs[short]["address"] = logs[short]["address"][:-2]
    logs[long]["address"] += "ab"
    with pytest.raises(HexMalformed, match="address"):
        built_of([(block, receipts)])


@pytest.mark.parametrize(
    ("name", "struct", "limit"),
    [
        ("nonce", Transaction, 64),
        ("timestamp", Block, 32),
        ("value", Transaction, 256),
        ("amount", Withdrawal, 64),
        ("status", Receipt, 8),
        ("logIndex", Log, 32),
    ],
)
def test_a_number_beyond_its_column_is_refused(name: str, struct: type, limit: int) -> None:
    built_of([_with(struct, name, hex(2**limit - 1))])
    with pytest.raises(QuantityOutOfRange, match=str(hex(2**limit))):
        built_of([_with(struct, name, hex(2**limit))])


def test_zeros_may_lead_a_number() -> None:
    columns, _ = built_of([_with(Transaction, "nonce", "0x" + "0" * 30 + "7")])
    assert 7 in columns.transactions.columns["nonce"].values.tolist()


def test_hex_letters_may_be_capitals() -> None:
    block, receipts = devchain_payload(busy_block())
    plain, _ = built_of([(block, receipts)])
    for tx in block["transactions"]:
        tx["to"] = tx["to"] and "0x" + tx["to"][2:].upper()
    capital, _ = built_of([(block, receipts)])
    left, right = (part.transactions.columns["to_address"] for part in (plain, capital))
    assert np.array_equal(left.values, right.values)


def test_five_topics_are_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    log = next(receipt["logs"][0] for receipt in receipts if receipt["logs"])
    log["topics"] = ["0x" + "11" * 32] * 5
    with pytest.raises(TopicsTooMany, match="5 topics"):
        built_of([(block, receipts)])


def test_a_bad_topic_is_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    log = next(r["logs"][0] for r in receipts if r["logs"] and r["logs"][0]["topics"])
    log["topics"][-1] = log["topics"][-1][:-1]
    with pytest.raises(HexMalformed, match="topic"):
        built_of([devchain_payload(1), (block, receipts)])


def test_receipts_need_whole_transactions() -> None:
    block, receipts = devchain_payload(busy_block())
    block["transactions"] = [tx["hash"] for tx in block["transactions"]]
    with pytest.raises(FieldMissing, match="transactions"):
        built_of([(block, receipts)])


def test_a_receipt_of_no_transaction_is_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    with pytest.raises(ReceiptsCountMismatch):
        built_of([(block, [*receipts, receipts[0]])])
    with pytest.raises(ReceiptsCountMismatch):
        built_of([(block, [receipts[1], receipts[0]])])


def test_a_missing_receipt_is_null_and_moves_no_log() -> None:
    block, receipts = devchain_payload(busy_block())
    index = next(i for i, receipt in enumerate(receipts) if receipt["logs"])
    lost = receipts.pop(index)
    columns, logs = built_of([(block, receipts)])
    status = columns.transactions.columns["status"]
    assert np.flatnonzero(~status.valid).tolist() == [index]
    assert logs is not None
    hashes = to_python(LOGS.column("transaction_hash").kind, logs.logs.columns["transaction_hash"])
    expected = [bytes_of(log["transactionHash"]) for receipt in receipts for log in receipt["logs"]]
    assert hashes == expected
    assert bytes_of(lost["transactionHash"]) not in hashes


def test_every_error_of_the_area_reads_well() -> None:
    codes = [code for code in HeadraceError.registry if code.startswith("HR-22")]
    assert len(codes) > 20
    for code in codes:
        error = HeadraceError.registry[code]
        assert issubclass(error, Permanent)
        assert error.what
        assert error.why
        assert error.fix
