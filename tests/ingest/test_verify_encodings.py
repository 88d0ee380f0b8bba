"""Encodings from columns equal those of eth-account and of the rlp library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rlp
from eth_account import Account
from eth_utils import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.build import build_block_columns
from ingest.build_logs import build_log_columns
from ingest.encode import encode_logs, encode_receipts
from ingest.encode_transactions import LAYOUTS, encode_transactions
from ingest.keccak import keccak
from ingest.proofs import receipt_blooms
from ingest.reprove import StoredRange, verify_stored
from ingest.verify import prove_segment
from ingest.wire import HEADER_FIELDS, STANDARD_TYPES, Transaction
from schemas.chains import load_chains
from schemas.errors_verify import LogsMissing, UnknownHeaderFields
from schemas.tables import Verification
from tests.ingest.real_blocks import devchain_payload, parsed, parsed_receipts

Json = dict[str, Any]
KEY = "0x" + "4c" * 32
OTHER_KEY = "0x" + "5d" * 32

addresses = st.binary(min_size=20, max_size=20).map(to_checksum_address)
words = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
u64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
u128 = st.one_of(st.integers(0, 300), st.integers(0, 2**128 - 1))
u256 = st.one_of(st.integers(0, 300), st.integers(0, 2**256 - 1))
data = st.one_of(st.binary(max_size=3), st.binary(max_size=120))
access_lists = st.lists(
    st.fixed_dictionaries({"address": addresses, "storageKeys": st.lists(words, max_size=3)}),
    max_size=3,
)
calls = {"nonce": u64, "gas": st.integers(21_000, 2**40), "value": u256, "data": data}
fees = {"chainId": st.integers(1, 2**32), "maxFeePerGas": u128, "maxPriorityFeePerGas": u128}
blobs = {
    "maxFeePerBlobGas": u128,
    "blobVersionedHashes": st.lists(
        st.binary(min_size=31, max_size=31).map(lambda raw: "0x01" + raw.hex()),
        min_size=1,
        max_size=4,
    ),
}
optional_to = st.one_of(st.just(""), addresses)

SIGNABLE = {
    0: st.fixed_dictionaries(
        {**calls, "gasPrice": u128, "chainId": st.integers(1, 2**32), "to": optional_to}
    ),
    1: st.fixed_dictionaries(
        {
            **calls,
            "type": st.just(1),
            "gasPrice": u128,
            "chainId": st.integers(1, 2**32),
            "accessList": access_lists,
            "to": optional_to,
        }
    ),
    2: st.fixed_dictionaries(
        {**calls, **fees, "type": st.just(2), "accessList": access_lists, "to": optional_to}
    ),
    3: st.fixed_dictionaries(
        {**calls, **fees, **blobs, "type": st.just(3), "accessList": access_lists, "to": addresses}
    ),
    4: st.fixed_dictionaries(
        {
            **calls,
            **fees,
            "type": st.just(4),
            "accessList": access_lists,
            "to": addresses,
            "grants": st.lists(
                st.tuples(u64, addresses, st.integers(0, 2**32)), min_size=1, max_size=3
            ),
        }
    ),
}


def _hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return hex(value) if isinstance(value, int) else value


def _signed(fields: Json) -> tuple[bytes, Json]:
    """The raw transaction that eth-account signs, and the JSON a node would show of it."""
    fields = dict(fields)
    grants = fields.pop("grants", None)
    if grants is not None:
        fields["authorizationList"] = [
            Account.sign_authorization(
                {"chainId": chain_id, "address": address, "nonce": nonce}, OTHER_KEY
            )
            for chain_id, address, nonce in grants
        ]
    signed = Account.sign_transaction(fields, KEY)
    shown = {name: _hex(value) for name, value in fields.items()}
    shown |= {
        "hash": _hex(bytes(signed.hash)),
        "from": "0x" + "00" * 20,
        "input": shown.pop("data"),
        "to": shown["to"] or None,
        "type": hex(fields.get("type", 0)),
        "v": hex(signed.v),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    if grants is not None:
        shown["authorizationList"] = [
            {
                "chainId": hex(one.chain_id),
                "address": _hex(bytes(one.address)),
                "nonce": hex(one.nonce),
                "yParity": hex(one.y_parity),
                "r": hex(one.r),
                "s": hex(one.s),
            }
            for one in fields["authorizationList"]
        ]
    return bytes(signed.raw_transaction), shown


def _encoded(transactions: list[Json]) -> list[bytes | None]:
    block, _ = devchain_payload(1)
    columns = build_block_columns([parsed(block | {"transactions": transactions})])
    return encode_transactions(columns.transactions)


@pytest.mark.parametrize("kind", SIGNABLE)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_transactions_equal_what_eth_account_signs(kind: int, data: st.DataObject) -> None:
    pairs = [
        _signed(fields) for fields in data.draw(st.lists(SIGNABLE[kind], min_size=1, max_size=3))
    ]
    assert _encoded([shown for _, shown in pairs]) == [raw for raw, _ in pairs]


def test_legacy_transactions_from_before_eip_155() -> None:
    raw, shown = _signed(
        {"nonce": 1, "gas": 21_000, "value": 5, "data": b"", "gasPrice": 7, "to": "0x" + "11" * 20}
    )
    assert shown["v"] in ("0x1b", "0x1c")
    assert _encoded([shown]) == [raw]


@given(
    st.fixed_dictionaries(
        {
            "sourceHash": words,
            "from": addresses,
            "to": st.one_of(st.none(), addresses),
            "mint": st.one_of(st.none(), u256.map(hex)),
            "value": u256.map(hex),
            "gas": u64.map(hex),
            "isSystemTx": st.one_of(st.none(), st.booleans()),
            "input": data.map(_hex),
        }
    )
)
@settings(max_examples=50, deadline=None)
def test_deposits_of_the_op_stack_equal_their_specification(fields: Json) -> None:
    def part(name: str) -> bytes:
        return raw(fields[name] or "0x")

    def number(name: str) -> int:
        return int(fields[name] or "0x0", 16)

    expected = b"\x7e" + rlp.encode(
        [
            part("sourceHash"),
            part("from"),
            part("to"),
            number("mint"),
            number("value"),
            number("gas"),
            int(fields["isSystemTx"] or False),
            part("input"),
        ]
    )
    shown = fields | {"hash": "0x" + "00" * 32, "nonce": "0x0", "type": "0x7e", "v": "0x0"}
    assert _encoded([shown]) == [expected]


AVALANCHE = {
    "extDataHash": "0x" + "56" * 32,
    "baseFeePerGas": "0x5d21dba00",
    "extDataGasUsed": "0x0",
    "blockGasCost": "0x61a80",
    "blobGasUsed": "0x0",
    "excessBlobGas": "0x0",
    "parentBeaconBlockRoot": "0x" + "00" * 32,
    "timestampMilliseconds": "0x1a05e240f88",
    "minDelayExcess": "0x6cd69c",
    "targetExponent": "0xf0a451",
    "minPriceExponent": "0xd49a784bcd1b8b0",
    "settledHeight": "0x376d4ae",
    "settledGasUnix": "0x6a971370",
    "settledGasNumerator": "0x83720",
    "settledExcess": "0x131b81f7",
}
"""What follows the nonce in C-Chain headers, in order; older forks have the first four or seven."""


def _avalanche_block(fields: int) -> Json:
    block, _ = devchain_payload(1)
    later = dict(list(AVALANCHE.items())[:fields])
    kept = {name: block[name] for name in HEADER_FIELDS[:15]} | later
    values = [
        int(text, 16) if len(text) < 20 and name not in ("extraData", "nonce") else raw(text)
        for name, text in kept.items()
    ]
    own = {"hash": "0x" + keccak(rlp.encode(values)).hex(), "blockExtraData": "0x"}
    return kept | own | {"transactions": [], "uncles": []}


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@pytest.mark.parametrize("fields", [4, 7, 9, 15])
def test_headers_of_avalanche_are_proven(fields: int) -> None:
    block = _avalanche_block(fields)
    proven = prove_segment([parsed(block)], None, Verification.header)
    assert proven.verdict.level == Verification.header
    kept = proven.columns.blocks.columns["extra"].values.tobytes()
    assert b"extDataHash" in kept
    assert verify_stored(StoredRange(proven.columns.blocks)) == []
    for name in list(AVALANCHE)[:fields]:
        altered = block | {name: block[name][:-1] + ("1" if block[name][-1] != "1" else "2")}
        with pytest.raises(UnknownHeaderFields, match="extDataHash"):
            prove_segment([parsed(altered)], None, Verification.header)
    with pytest.raises(UnknownHeaderFields, match="extDataHash"):
        prove_segment([parsed(block | {"extDataHash": 5})], None, Verification.header)


@pytest.mark.parametrize(("fields", "is_settled"), [(9, False), (15, True)])
def test_a_header_of_earlier_blocks_says_nothing_of_its_own_logs(
    fields: int, is_settled: bool
) -> None:
    facts, block = load_chains()["avalanche"], parsed(_avalanche_block(fields))
    if not is_settled:
        with pytest.raises(LogsMissing):
            prove_segment([block], [[]], Verification.header, facts)
        return
    words = prove_segment([block], [[]], Verification.header, facts).verdict.unproven
    assert "logs in 1 of 1 blocks: header is of earlier ones" in words


def test_a_deposit_without_a_nonce_has_that_of_its_receipt() -> None:
    block, shown = devchain_payload(1)
    del block["transactions"][0]["nonce"]
    shown[0]["depositNonce"] = "0x2efaea6"
    blocks, lists = [parsed(block)], [parsed_receipts(shown)]
    columns = build_block_columns(blocks, lists)
    nonces: Any = columns.transactions.columns["nonce"]
    assert nonces.values[0] == 0x2EFAEA6
    del shown[0]["depositNonce"]
    for receipts in (None, [parsed_receipts(shown)]):
        columns = build_block_columns(blocks, receipts)
        nonces = columns.transactions.columns["nonce"]
        assert nonces.valid.tolist() == [False] + [True] * (len(nonces.valid) - 1)


def test_every_known_type_is_tested_here() -> None:
    assert {*SIGNABLE} == {*LAYOUTS} == {*STANDARD_TYPES}


def test_an_unknown_type_has_no_encoding() -> None:
    block, _ = devchain_payload(1)
    strange = block["transactions"][0] | {"type": "0x64"}
    assert _encoded([strange, block["transactions"][1]])[0] is None
    assert isinstance(parsed(block | {"transactions": [strange]}).transactions[0], Transaction)


logs = st.fixed_dictionaries(
    {
        "address": addresses,
        "topics": st.lists(words, max_size=4),
        "data": data.map(_hex),
    }
)
deposit_tails = st.sampled_from([{}, {"depositNonce": "0x5"}, {"depositNonce": "0x0"}])
outcomes = st.one_of(
    st.sampled_from([{"status": "0x0"}, {"status": "0x1"}]),
    words.map(lambda root: {"root": root}),
    words.map(lambda root: {"root": root, "status": None}),
    st.just({"status": "0x1", "root": "0x"}),
)
receipts = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["0x0", "0x1", "0x2", "0x3", "0x4", "0x7e"]),
        "cumulativeGasUsed": u64.map(hex),
        "outcome": outcomes,
        "logs": st.lists(logs, max_size=4),
        "deposit": deposit_tails,
        "canyon": st.booleans(),
    }
)


def _bloom(entries: list[Json]) -> bytes:
    bits = 0
    for entry in entries:
        for text in (entry["address"], *entry["topics"]):
            digest = keccak(bytes.fromhex(text[2:]))
            for at in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") % 2048)
    return bits.to_bytes(256, "big")


def _reference(receipt: Json) -> bytes:
    outcome = receipt["outcome"]
    root = bytes.fromhex(outcome.get("root", "0x")[2:])
    fields = [
        root or int(outcome["status"], 16),
        int(receipt["cumulativeGasUsed"], 16),
        _bloom(receipt["logs"]),
        [
            [
                bytes.fromhex(entry["address"][2:]),
                [bytes.fromhex(topic[2:]) for topic in entry["topics"]],
                bytes.fromhex(entry["data"][2:]),
            ]
            for entry in receipt["logs"]
        ],
    ]
    kind = int(receipt["type"], 16)
    if kind == 0x7E and receipt["canyon"]:
        fields += [int(receipt["deposit"].get("depositNonce", "0x0"), 16), 1]
    payload = rlp.encode(fields)
    return bytes([kind]) + payload if kind else payload


@settings(max_examples=80, deadline=None)
@given(st.lists(receipts, max_size=6))
def test_receipts_equal_the_rlp_library(drawn: list[Json]) -> None:
    block, _ = devchain_payload(1)
    template = block["transactions"][0]
    transactions, shown, index = [], [], 0
    for receipt in drawn:
        transactions.append(template | {"type": receipt["type"]})
        version = {"depositReceiptVersion": "0x1"} if receipt["canyon"] else {}
        place = {
            "blockHash": block["hash"],
            "blockNumber": block["number"],
            "transactionHash": template["hash"],
            "transactionIndex": "0x0",
        }
        entries = []
        for entry in receipt["logs"]:
            entries.append(place | entry | {"logIndex": hex(index)})
            index += 1
        shown.append(
            place
            | receipt["outcome"]
            | receipt["deposit"]
            | version
            | {
                "type": receipt["type"],
                "cumulativeGasUsed": receipt["cumulativeGasUsed"],
                "gasUsed": "0x0",
                "logs": entries,
            }
        )
    blocks, lists = [parsed(block | {"transactions": transactions})], [parsed_receipts(shown)]
    columns = build_block_columns(blocks, lists)
    built = build_log_columns(blocks, lists, columns).logs
    owners = [row for row, receipt in enumerate(drawn) for _ in receipt["logs"]]
    bloom = receipt_blooms(built, np.array(owners, np.int64), len(drawn))
    encoded = encode_receipts(columns.transactions, encode_logs(built), bloom)
    assert encoded == [_reference(receipt) for receipt in drawn]
