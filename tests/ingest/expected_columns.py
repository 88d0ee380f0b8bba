"""JSON payloads in, what each column must hold by a second, slow reading of them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingest.build import BlockColumns, build_block_columns
from ingest.build_logs import LogColumns, build_log_columns
from tests.ingest.real_blocks import (
    parsed,
    parsed_receipts,
)

Json = dict[str, Any]

Payloads = list[tuple[Json, list[Json] | None]]

DEVCHAIN = ("devchain", 0)


def built_of(
    payloads: list[tuple[Json, list[Json] | None]],
) -> tuple[BlockColumns, LogColumns | None]:
    blocks = [parsed(block) for block, _ in payloads]
    if payloads[0][1] is None:
        return build_block_columns(blocks), None
    receipts = [parsed_receipts(part or []) for _, part in payloads]
    columns = build_block_columns(blocks, receipts)
    return columns, build_log_columns(blocks, receipts, columns)


def number_of(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def bytes_of(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text[2:])


Oracle = dict[str, Callable[..., Any]]

BLOCK_ORACLE: Oracle = {
    "block_number": lambda b, r: number_of(b["number"]),
    "block_hash": lambda b, r: bytes_of(b["hash"]),
    "block_time": lambda b, r: number_of(b["timestamp"]),
    "parent_hash": lambda b, r: bytes_of(b["parentHash"]),
    "ommers_hash": lambda b, r: bytes_of(b["sha3Uncles"]),
    "miner": lambda b, r: bytes_of(b["miner"]),
    "state_root": lambda b, r: bytes_of(b["stateRoot"]),
    "transactions_root": lambda b, r: bytes_of(b["transactionsRoot"]),
    "receipts_root": lambda b, r: bytes_of(b["receiptsRoot"]),
    "logs_bloom": lambda b, r: bytes_of(b["logsBloom"]),
    "difficulty": lambda b, r: number_of(b["difficulty"]),
    "gas_limit": lambda b, r: number_of(b["gasLimit"]),
    "gas_used": lambda b, r: number_of(b["gasUsed"]),
    "extra_data": lambda b, r: bytes_of(b["extraData"]),
    "mix_hash": lambda b, r: bytes_of(b["mixHash"]),
    "nonce": lambda b, r: bytes_of(b["nonce"]),
    "base_fee_per_gas_wei": lambda b, r: number_of(b.get("baseFeePerGas")),
    "withdrawals_root": lambda b, r: bytes_of(b.get("withdrawalsRoot")),
    "blob_gas_used": lambda b, r: number_of(b.get("blobGasUsed")),
    "excess_blob_gas": lambda b, r: number_of(b.get("excessBlobGas")),
    "parent_beacon_block_root": lambda b, r: bytes_of(b.get("parentBeaconBlockRoot")),
    "requests_hash": lambda b, r: bytes_of(b.get("requestsHash")),
    "block_access_list_hash": lambda b, r: bytes_of(b.get("blockAccessListHash")),
    "slot_number": lambda b, r: number_of(b.get("slotNumber")),
    "extra": lambda b, r: b"",
    "size_bytes": lambda b, r: number_of(b.get("size")),
    "transaction_count": lambda b, r: len(b["transactions"]),
    "log_count": lambda b, r: None if r is None else sum(len(one["logs"]) for one in r),
    "verification": lambda b, r: 0,
}


def _receipt(name: str, read: Callable[[str | None], Any] = number_of) -> Callable[..., Any]:
    return lambda b, i, t, r: None if r is None else read(r.get(name))


def _tx(name: str, read: Callable[[str | None], Any] = number_of) -> Callable[..., Any]:
    return lambda b, i, t, r: read(t.get(name))


def _v(b: Json, i: int, t: Json, r: Json | None) -> int | None:
    typed = t.get("type", "0x0") != "0x0"
    return number_of(t.get("yParity", t.get("v")) if typed else t.get("v"))


def _grants(b: Json, i: int, t: Json, r: Json | None) -> list[tuple[Any, ...]]:
    return [
        (
            number_of(grant["chainId"]),
            bytes_of(grant["address"]),
            number_of(grant["nonce"]),
            number_of(grant["yParity"]),
            number_of(grant["r"]),
            number_of(grant["s"]),
        )
        for grant in t.get("authorizationList") or []
    ]


TRANSACTION_ORACLE: Oracle = {
    "block_number": lambda b, i, t, r: number_of(b["number"]),
    "block_hash": lambda b, i, t, r: bytes_of(b["hash"]),
    "block_time": lambda b, i, t, r: number_of(b["timestamp"]),
    "transaction_index": lambda b, i, t, r: i,
    "transaction_hash": _tx("hash", bytes_of),
    "type": lambda b, i, t, r: number_of(t.get("type", "0x0")),
    "from_address": _tx("from", bytes_of),
    "to_address": _tx("to", bytes_of),
    "nonce": _tx("nonce"),
    "value_wei": _tx("value"),
    "gas_limit": _tx("gas"),
    "gas_price_wei": _tx("gasPrice"),
    "max_fee_per_gas_wei": _tx("maxFeePerGas"),
    "max_priority_fee_per_gas_wei": _tx("maxPriorityFeePerGas"),
    "max_fee_per_blob_gas_wei": _tx("maxFeePerBlobGas"),
    "input": _tx("input", bytes_of),
    "chain_id": _tx("chainId"),
    "access_list": lambda b, i, t, r: [
        (bytes_of(entry["address"]), [bytes_of(key) for key in entry["storageKeys"]])
        for entry in t.get("accessList") or []
    ],
    "has_access_list": lambda b, i, t, r: t.get("accessList") is not None,
    "blob_versioned_hashes": lambda b, i, t, r: [
        bytes_of(one) for one in t.get("blobVersionedHashes") or []
    ],
    "authorization_list": _grants,
    "v": _v,
    "r": _tx("r"),
    "s": _tx("s"),
    "source_hash": _tx("sourceHash", bytes_of),
    "mint_wei": _tx("mint"),
    "is_system_transaction": lambda b, i, t, r: t.get("isSystemTx"),
    "status": _receipt("status"),
    "post_state_root": _receipt("root", bytes_of),
    "cumulative_gas_used": _receipt("cumulativeGasUsed"),
    "gas_used": _receipt("gasUsed"),
    "effective_gas_price_wei": _receipt("effectiveGasPrice"),
    "contract_address": _receipt("contractAddress", bytes_of),
    "blob_gas_used": _receipt("blobGasUsed"),
    "blob_gas_price_wei": _receipt("blobGasPrice"),
    "log_count": lambda b, i, t, r: None if r is None else len(r["logs"]),
    "deposit_nonce": _receipt("depositNonce"),
    "deposit_receipt_version": _receipt("depositReceiptVersion"),
    "l1_fee_wei": _receipt("l1Fee"),
    "extra": lambda b, i, t, r: b"",
}

WITHDRAWAL_ORACLE: Oracle = {
    "block_number": lambda b, i, w: number_of(b["number"]),
    "block_hash": lambda b, i, w: bytes_of(b["hash"]),
    "block_time": lambda b, i, w: number_of(b["timestamp"]),
    "position": lambda b, i, w: i,
    "withdrawal_index": lambda b, i, w: number_of(w["index"]),
    "validator_index": lambda b, i, w: number_of(w["validatorIndex"]),
    "address": lambda b, i, w: bytes_of(w["address"]),
    "amount_gwei": lambda b, i, w: number_of(w["amount"]),
}


def _topic(place: int) -> Callable[..., Any]:
    return lambda b, i, g: bytes_of(g["topics"][place]) if len(g["topics"]) > place else None


LOG_ORACLE: Oracle = {
    "block_number": lambda b, i, g: number_of(b["number"]),
    "block_hash": lambda b, i, g: bytes_of(b["hash"]),
    "block_time": lambda b, i, g: number_of(b["timestamp"]),
    "transaction_hash": lambda b, i, g: bytes_of(b["transactions"][i]["hash"]),
    "transaction_index": lambda b, i, g: i,
    "log_index": lambda b, i, g: number_of(g["logIndex"]),
    "address": lambda b, i, g: bytes_of(g["address"]),
    "topic0": _topic(0),
    "topic1": _topic(1),
    "topic2": _topic(2),
    "topic3": _topic(3),
    "data": lambda b, i, g: bytes_of(g["data"]),
}

HEADER_REF_ORACLE: Oracle = {
    name: BLOCK_ORACLE[name]
    for name in ("block_number", "block_hash", "block_time", "parent_hash", "log_count")
}


def oracle_rows(
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
