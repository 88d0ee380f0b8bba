"""Columns hold what the payloads say, value by value, or the payload is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from ingest.build import BlockColumns, block_segment, build_block_columns
from ingest.build_logs import LogColumns, build_filtered_log_columns, build_log_columns, log_segment
from ingest.verdict import Verdict
from ingest.wire import Block, Log, Receipt, Transaction, Withdrawal
from schemas.codec import (
    decode_block_segment,
    decode_log_segment,
    encode_block_segment,
    encode_log_segment,
)
from schemas.columns import ColumnBlock, from_spans, row_count, to_buffers, to_native, to_python
from schemas.errors import HeadraceError, Permanent
from schemas.errors_verify import (
    FieldMissing,
    HexMalformed,
    QuantityOutOfRange,
    ReceiptsCountMismatch,
    TopicsTooMany,
)
from schemas.segments import SegmentName
from schemas.tables import (
    BLOCKS,
    HEADER_REFS,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    Table,
    Verification,
)
from tests.ingest.real_blocks import (
    busy_block,
    devchain,
    devchain_payload,
    expected_blocks,
    load_payload,
    parsed,
    parsed_receipts,
)

Json = dict[str, Any]
Payloads = list[tuple[Json, list[Json] | None]]
DEVCHAIN = ("devchain", 0)
SOURCES = [DEVCHAIN, *[(row.chain, row.number) for row in expected_blocks()]]


def _segments(source: tuple[str, int]) -> Payloads:
    if source == DEVCHAIN:
        return [devchain_payload(number) for number in range(len(devchain().blocks()))]
    return [load_payload(*source)]


def _built(
    payloads: list[tuple[Json, list[Json] | None]],
) -> tuple[BlockColumns, LogColumns | None]:
    blocks = [parsed(block) for block, _ in payloads]
    if payloads[0][1] is None:
        return build_block_columns(blocks), None
    receipts = [parsed_receipts(part or []) for _, part in payloads]
    columns = build_block_columns(blocks, receipts)
    return columns, build_log_columns(blocks, receipts, columns)


def _tables(columns: BlockColumns, logs: LogColumns | None) -> list[tuple[Table, ColumnBlock]]:
    pairs = [
        (BLOCKS, columns.blocks),
        (TRANSACTION_TABLE, columns.transactions),
        (WITHDRAWALS, columns.withdrawals),
    ]
    return pairs if logs is None else [*pairs, (LOGS, logs.logs), (HEADER_REFS, logs.headers)]


def _int(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text[2:])


Oracle = dict[str, Callable[..., Any]]

BLOCK_ORACLE: Oracle = {
    "block_number": lambda b, r: _int(b["number"]),
    "block_hash": lambda b, r: _bytes(b["hash"]),
    "block_time": lambda b, r: _int(b["timestamp"]),
    "parent_hash": lambda b, r: _bytes(b["parentHash"]),
    "ommers_hash": lambda b, r: _bytes(b["sha3Uncles"]),
    "miner": lambda b, r: _bytes(b["miner"]),
    "state_root": lambda b, r: _bytes(b["stateRoot"]),
    "transactions_root": lambda b, r: _bytes(b["transactionsRoot"]),
    "receipts_root": lambda b, r: _bytes(b["receiptsRoot"]),
    "logs_bloom": lambda b, r: _bytes(b["logsBloom"]),
    "difficulty": lambda b, r: _int(b["difficulty"]),
    "gas_limit": lambda b, r: _int(b["gasLimit"]),
    "gas_used": lambda b, r: _int(b["gasUsed"]),
    "extra_data": lambda b, r: _bytes(b["extraData"]),
    "mix_hash": lambda b, r: _bytes(b["mixHash"]),
    "nonce": lambda b, r: _bytes(b["nonce"]),
    "base_fee_per_gas_wei": lambda b, r: _int(b.get("baseFeePerGas")),
    "withdrawals_root": lambda b, r: _bytes(b.get("withdrawalsRoot")),
    "blob_gas_used": lambda b, r: _int(b.get("blobGasUsed")),
    "excess_blob_gas": lambda b, r: _int(b.get("excessBlobGas")),
    "parent_beacon_block_root": lambda b, r: _bytes(b.get("parentBeaconBlockRoot")),
    "requests_hash": lambda b, r: _bytes(b.get("requestsHash")),
    "unknown_fields": lambda b, r: b"",
    "size_bytes": lambda b, r: _int(b.get("size")),
    "transaction_count": lambda b, r: len(b["transactions"]),
    "log_count": lambda b, r: None if r is None else sum(len(one["logs"]) for one in r),
    "verification": lambda b, r: 0,
}


def _receipt(name: str, read: Callable[[str | None], Any] = _int) -> Callable[..., Any]:
    return lambda b, i, t, r: None if r is None else read(r.get(name))


def _tx(name: str, read: Callable[[str | None], Any] = _int) -> Callable[..., Any]:
    return lambda b, i, t, r: read(t.get(name))


def _v(b: Json, i: int, t: Json, r: Json | None) -> int | None:
    typed = t.get("type", "0x0") != "0x0"
    return _int(t.get("yParity", t.get("v")) if typed else t.get("v"))


def _grants(b: Json, i: int, t: Json, r: Json | None) -> list[tuple[Any, ...]]:
    return [
        (
            _int(grant["chainId"]),
            _bytes(grant["address"]),
            _int(grant["nonce"]),
            _int(grant["yParity"]),
            _int(grant["r"]),
            _int(grant["s"]),
        )
        for grant in t.get("authorizationList") or []
    ]


TRANSACTION_ORACLE: Oracle = {
    "block_number": lambda b, i, t, r: _int(b["number"]),
    "block_hash": lambda b, i, t, r: _bytes(b["hash"]),
    "block_time": lambda b, i, t, r: _int(b["timestamp"]),
    "transaction_index": lambda b, i, t, r: i,
    "transaction_hash": _tx("hash", _bytes),
    "type": lambda b, i, t, r: _int(t.get("type", "0x0")),
    "from_address": _tx("from", _bytes),
    "to_address": _tx("to", _bytes),
    "nonce": _tx("nonce"),
    "value_wei": _tx("value"),
    "gas_limit": _tx("gas"),
    "gas_price_wei": _tx("gasPrice"),
    "max_fee_per_gas_wei": _tx("maxFeePerGas"),
    "max_priority_fee_per_gas_wei": _tx("maxPriorityFeePerGas"),
    "max_fee_per_blob_gas_wei": _tx("maxFeePerBlobGas"),
    "input": _tx("input", _bytes),
    "chain_id": _tx("chainId"),
    "access_list": lambda b, i, t, r: [
        (_bytes(entry["address"]), [_bytes(key) for key in entry["storageKeys"]])
        for entry in t.get("accessList") or []
    ],
    "has_access_list": lambda b, i, t, r: t.get("accessList") is not None,
    "blob_versioned_hashes": lambda b, i, t, r: [
        _bytes(one) for one in t.get("blobVersionedHashes") or []
    ],
    "authorization_list": _grants,
    "v": _v,
    "r": _tx("r"),
    "s": _tx("s"),
    "source_hash": _tx("sourceHash", _bytes),
    "mint_wei": _tx("mint"),
    "is_system_transaction": lambda b, i, t, r: t.get("isSystemTx"),
    "status": _receipt("status"),
    "post_state_root": _receipt("root", _bytes),
    "cumulative_gas_used": _receipt("cumulativeGasUsed"),
    "gas_used": _receipt("gasUsed"),
    "effective_gas_price_wei": _receipt("effectiveGasPrice"),
    "contract_address": _receipt("contractAddress", _bytes),
    "blob_gas_used": _receipt("blobGasUsed"),
    "blob_gas_price_wei": _receipt("blobGasPrice"),
    "log_count": lambda b, i, t, r: None if r is None else len(r["logs"]),
    "deposit_nonce": _receipt("depositNonce"),
    "deposit_receipt_version": _receipt("depositReceiptVersion"),
    "l1_fee_wei": _receipt("l1Fee"),
}

WITHDRAWAL_ORACLE: Oracle = {
    "block_number": lambda b, i, w: _int(b["number"]),
    "block_hash": lambda b, i, w: _bytes(b["hash"]),
    "block_time": lambda b, i, w: _int(b["timestamp"]),
    "position": lambda b, i, w: i,
    "withdrawal_index": lambda b, i, w: _int(w["index"]),
    "validator_index": lambda b, i, w: _int(w["validatorIndex"]),
    "address": lambda b, i, w: _bytes(w["address"]),
    "amount_gwei": lambda b, i, w: _int(w["amount"]),
}


def _topic(place: int) -> Callable[..., Any]:
    return lambda b, i, g: _bytes(g["topics"][place]) if len(g["topics"]) > place else None


LOG_ORACLE: Oracle = {
    "block_number": lambda b, i, g: _int(b["number"]),
    "block_hash": lambda b, i, g: _bytes(b["hash"]),
    "block_time": lambda b, i, g: _int(b["timestamp"]),
    "transaction_hash": lambda b, i, g: _bytes(b["transactions"][i]["hash"]),
    "transaction_index": lambda b, i, g: i,
    "log_index": lambda b, i, g: _int(g["logIndex"]),
    "address": lambda b, i, g: _bytes(g["address"]),
    "topic0": _topic(0),
    "topic1": _topic(1),
    "topic2": _topic(2),
    "topic3": _topic(3),
    "data": lambda b, i, g: _bytes(g["data"]),
}

HEADER_REF_ORACLE: Oracle = {
    name: BLOCK_ORACLE[name]
    for name in ("block_number", "block_hash", "block_time", "parent_hash", "log_count")
}


def _oracle_rows(
    payloads: list[tuple[Json, list[Json] | None]],
) -> dict[str, list[tuple[Any, ...]]]:
    rows: dict[str, list[tuple[Any, ...]]] = {
        name: [] for name in ("blocks", "transactions", "withdrawals", "logs", "headers")
    }
    for block, receipts in payloads:
        rows["blocks"].append((block, receipts))
        rows["headers"].append((block, receipts))
        by_hash = {one["transactionHash"]: one for one in receipts or []}
        for index, tx in enumerate(block["transactions"]):
            own = by_hash.get(tx["hash"])
            rows["transactions"].append((block, index, tx, own))
            rows["logs"] += [(block, index, log) for log in (own or {"logs": []})["logs"]]
        rows["withdrawals"] += [
            (block, *pair) for pair in enumerate(block.get("withdrawals") or [])
        ]
    return rows


ORACLES: dict[str, Oracle] = {
    "blocks": BLOCK_ORACLE,
    "transactions": TRANSACTION_ORACLE,
    "withdrawals": WITHDRAWAL_ORACLE,
    "logs": LOG_ORACLE,
    "headers": HEADER_REF_ORACLE,
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source[0]}-{source[1]}")
def test_every_declared_column_holds_what_the_payload_says(source: tuple[str, int]) -> None:
    payloads = _segments(source)
    columns, logs = _built(payloads)
    rows = _oracle_rows(payloads)
    for table, block in _tables(columns, logs):
        oracle = ORACLES[table.name]
        assert list(block.columns) == [spec.name for spec in table.columns] == [*oracle]
        assert block.rows == len(rows[table.name])
        for spec in table.columns:
            column = block.columns[spec.name]
            assert row_count(column) == block.rows, spec.name
            expected = [oracle[spec.name](*row) for row in rows[table.name]]
            assert to_python(spec.kind, column) == expected, spec.name
            buffers = to_buffers(spec.kind, column)
            spans = iter([(buffer, 0, len(buffer)) for buffer in buffers])
            again = from_spans(spec.kind, block.rows, spans)
            assert to_native(spec.kind, again) == to_native(spec.kind, column)


def test_the_devchain_shows_every_kind_of_value() -> None:
    # Else the test above would say less than its name does, where there is no chain data.
    blocks = [block for block, _ in _segments(DEVCHAIN)]
    types = {tx["type"] for block in blocks for tx in block["transactions"]}
    assert {"0x0", "0x1", "0x2"} <= types
    assert any(block.get("withdrawals") for block in blocks)
    assert any(tx["to"] is None for block in blocks for tx in block["transactions"])


def test_without_receipts_their_columns_are_null() -> None:
    payloads = [(block, None) for block, _ in _segments(DEVCHAIN)]
    columns, _ = _built(payloads)
    rows = _oracle_rows(payloads)["transactions"]
    for name, read in TRANSACTION_ORACLE.items():
        kind = TRANSACTION_TABLE.column(name).kind
        found = to_python(kind, columns.transactions.columns[name])
        assert found == [read(*row) for row in rows], name


def test_segments_survive_their_avro_messages() -> None:
    columns, logs = _built(_segments(DEVCHAIN))
    assert logs is not None
    name = SegmentName(1337, "blocks", "history", 0, 12, b"\1" * 32, "0" * 16)
    segment = block_segment(name, 5, columns)
    again = decode_block_segment(encode_block_segment(segment))
    verdict = Verdict(Verification.receipts, ("header hash",), ("withdrawals",))
    log_name = SegmentName(1337, "logs", "history", 0, 12, b"\1" * 32, "0" * 16)
    built = log_segment(log_name, 5, logs, verdict)
    logs_again = decode_log_segment(encode_log_segment(built))
    assert (again.name, again.observed_at_ms) == (name, 5)
    assert (logs_again.level, logs_again.proven) == (Verification.receipts, ("header hash",))
    for table, before, after in (
        (BLOCKS, segment.blocks, again.blocks),
        (TRANSACTION_TABLE, segment.transactions, again.transactions),
        (WITHDRAWALS, segment.withdrawals, again.withdrawals),
        (LOGS, built.logs, logs_again.logs),
        (HEADER_REFS, built.headers, logs_again.headers),
    ):
        for spec in table.columns:
            left, right = before.columns[spec.name], after.columns[spec.name]
            assert to_buffers(spec.kind, left) == to_buffers(spec.kind, right), spec.name


def test_no_blocks_make_empty_columns() -> None:
    columns = build_block_columns([], [])
    logs = build_log_columns([], [], columns)
    for table, block in _tables(columns, logs):
        assert (block.rows, list(block.columns)) == (0, [spec.name for spec in table.columns])


def test_filtered_logs_keep_the_nodes_word_on_their_place() -> None:
    block, receipts = devchain_payload(busy_block())
    flat = [log for receipt in receipts for log in receipt["logs"]]
    some = parsed_receipts([receipts[0] | {"logs": flat[::3]}])[0].logs
    header = parsed(block | {"transactions": [tx["hash"] for tx in block["transactions"]]})
    columns = build_block_columns([header])
    built = build_filtered_log_columns([header], [some], columns)
    places = {log["logIndex"]: log["transactionIndex"] for log in flat}
    assert built.logs.columns["transaction_index"].tolist() == [
        int(places[log["logIndex"]], 16) for log in flat[::3]
    ]
    assert built.headers.columns["log_count"].tolist() == [len(some)]


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
NOT_STORED = {
    Block: {"(source)"},
    Transaction: {"blockHash", "transactionIndex"},
    Receipt: {
        "transactionHash",
        "transactionIndex",
        "blockHash",
        "blockNumber",
        "logsBloom",
        "type",
    },
    Log: {"blockHash", "blockNumber", "transactionHash", "transactionIndex"},
    Withdrawal: set(),
}
"""Texts that only name a place or are proven as a whole: ingest/places.py compares them."""


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
        _built([devchain_payload(1), payload])
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
        _built([(block, receipts)])


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
    _built([_with(struct, name, hex(2**limit - 1))])
    with pytest.raises(QuantityOutOfRange, match=str(hex(2**limit))):
        _built([_with(struct, name, hex(2**limit))])


def test_zeros_may_lead_a_number() -> None:
    columns, _ = _built([_with(Transaction, "nonce", "0x" + "0" * 30 + "7")])
    assert 7 in columns.transactions.columns["nonce"].tolist()


def test_hex_letters_may_be_capitals() -> None:
    block, receipts = devchain_payload(busy_block())
    plain, _ = _built([(block, receipts)])
    for tx in block["transactions"]:
        tx["to"] = tx["to"] and "0x" + tx["to"][2:].upper()
    capital, _ = _built([(block, receipts)])
    left, right = (part.transactions.columns["to_address"] for part in (plain, capital))
    assert np.array_equal(left.values, right.values)


def test_five_topics_are_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    log = next(receipt["logs"][0] for receipt in receipts if receipt["logs"])
    log["topics"] = ["0x" + "11" * 32] * 5
    with pytest.raises(TopicsTooMany, match="5 topics"):
        _built([(block, receipts)])


def test_a_bad_topic_is_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    log = next(r["logs"][0] for r in receipts if r["logs"] and r["logs"][0]["topics"])
    log["topics"][-1] = log["topics"][-1][:-1]
    with pytest.raises(HexMalformed, match="topic"):
        _built([devchain_payload(1), (block, receipts)])


def test_receipts_need_whole_transactions() -> None:
    block, receipts = devchain_payload(busy_block())
    block["transactions"] = [tx["hash"] for tx in block["transactions"]]
    with pytest.raises(FieldMissing, match="transactions"):
        _built([(block, receipts)])


def test_a_receipt_of_no_transaction_is_refused() -> None:
    block, receipts = devchain_payload(busy_block())
    with pytest.raises(ReceiptsCountMismatch):
        _built([(block, [*receipts, receipts[0]])])
    with pytest.raises(ReceiptsCountMismatch):
        _built([(block, [receipts[1], receipts[0]])])


def test_a_missing_receipt_is_null_and_moves_no_log() -> None:
    block, receipts = devchain_payload(busy_block())
    index = next(i for i, receipt in enumerate(receipts) if receipt["logs"])
    lost = receipts.pop(index)
    columns, logs = _built([(block, receipts)])
    status = columns.transactions.columns["status"]
    assert np.flatnonzero(~status.valid).tolist() == [index]
    assert logs is not None
    hashes = to_python(LOGS.column("transaction_hash").kind, logs.logs.columns["transaction_hash"])
    expected = [_bytes(log["transactionHash"]) for receipt in receipts for log in receipt["logs"]]
    assert hashes == expected
    assert _bytes(lost["transactionHash"]) not in hashes


def test_every_error_of_the_area_reads_well() -> None:
    codes = [code for code in HeadraceError.registry if code.startswith("HR-22")]
    assert len(codes) > 20
    for code in codes:
        error = HeadraceError.registry[code]
        assert issubclass(error, Permanent)
        assert error.what
        assert error.why
        assert error.fix
