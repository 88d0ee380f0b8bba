"""A true block in, copies of it with one damage each out, and the reason to refuse each."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from ingest.verify import ProvenSegment
from schemas.errors import HeadraceError
from schemas.errors_verify import (
    BlockHashMismatch,
    BloomMismatch,
    FieldMissing,
    GasMismatch,
    LogIndexGap,
    LogMisplaced,
    LogRemoved,
    LogsMissing,
    ReceiptMisplaced,
    ReceiptsCountMismatch,
    ReceiptsNotProvable,
    ReceiptsOfAnotherBlock,
    ReceiptsRootMismatch,
    TransactionMisplaced,
    UnknownHeaderFields,
)
from schemas.tables import Verification
from tests.ingest.both_ways import prove_both_ways
from tests.ingest.real_blocks import (
    busy_block,
    devchain_payload,
    expected_blocks,
    load_payload,
    parsed,
    parsed_receipts,
)

Json = dict[str, Any]

Payload = tuple[Json, list[Json]]

Damage = Callable[[Json, list[Json]], list[Json] | None]

FULL, RECEIPTS = Verification.full, Verification.receipts

REAL = [
    (row.chain, row.number)
    for row in expected_blocks()
    if row.header and row.receipts_root and (row.logs or 0) > 4 and row.chain == "mainnet"
]

BLOCKS = [("devchain", 0), *REAL]


def payload_of(source: tuple[str, int]) -> Payload:
    if source[0] == "devchain":
        return devchain_payload(busy_block())
    block, receipts = load_payload(*source)
    assert receipts is not None
    return block, receipts


def prove(block: Json, receipts: list[Json], level: Verification = RECEIPTS) -> ProvenSegment:
    return prove_both_ways([parsed(block)], [parsed_receipts(receipts)], level)


def flip(text: str) -> str:
    """Another value of the same width; zero becomes one."""
    return text[:-1] + ("1" if text[-1] != "1" else "2")


def logs_in(receipts: list[Json]) -> list[Json]:
    return [log for receipt in receipts for log in receipt["logs"]]


def owner_of_logs(receipts: list[Json]) -> Json:
    """The receipt with most logs."""
    return max(receipts, key=lambda receipt: len(receipt["logs"]))


def renumber(receipts: list[Json]) -> None:
    """What a careful liar does: log indexes count up again."""
    for index, log in enumerate(logs_in(receipts)):
        log["logIndex"] = hex(index)


def drop_a_log(block: Json, receipts: list[Json]) -> None:
    del receipts[[len(r["logs"]) > 0 for r in receipts].index(True)]["logs"][0]


def drop_the_last_log(block: Json, receipts: list[Json]) -> None:
    [r for r in receipts if r["logs"]][-1]["logs"].pop()


def drop_a_log_and_renumber(block: Json, receipts: list[Json]) -> None:
    drop_a_log(block, receipts)
    renumber(receipts)


def drop_all_logs(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["logs"] = []


def duplicate_a_log(block: Json, receipts: list[Json]) -> None:
    logs = owner_of_logs(receipts)["logs"]
    logs.insert(1, deepcopy(logs[0]))


def duplicate_a_log_and_renumber(block: Json, receipts: list[Json]) -> None:
    duplicate_a_log(block, receipts)
    renumber(receipts)


def swap_two_logs(block: Json, receipts: list[Json]) -> None:
    logs = owner_of_logs(receipts)["logs"]
    logs[0], logs[1] = logs[1], logs[0]


def alter_data(block: Json, receipts: list[Json]) -> None:
    log = next(log for log in logs_in(receipts) if len(log["data"]) > 2)
    log["data"] = flip(log["data"])


def lengthen_data(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[0]["data"] += "00"


def alter_a_topic(block: Json, receipts: list[Json]) -> None:
    log = next(log for log in logs_in(receipts) if log["topics"])
    log["topics"][-1] = flip(log["topics"][-1])


def drop_a_topic(block: Json, receipts: list[Json]) -> None:
    next(log for log in logs_in(receipts) if log["topics"])["topics"].pop()


def alter_an_address(block: Json, receipts: list[Json]) -> None:
    log = logs_in(receipts)[-1]
    log["address"] = flip(log["address"])


def alter_the_status(block: Json, receipts: list[Json]) -> None:
    receipt = receipts[0]
    if "root" in receipt and "status" not in receipt:
        receipt["root"] = flip(receipt["root"])
    else:
        receipt["status"] = "0x0" if receipt["status"] == "0x1" else "0x1"


def add_gas_to_all(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["cumulativeGasUsed"] = hex(int(receipt["cumulativeGasUsed"], 16) + 1)


def alter_gas_used(block: Json, receipts: list[Json]) -> None:
    receipts[-1]["gasUsed"] = hex(int(receipts[-1]["gasUsed"], 16) + 1)


def alter_a_receipts_bloom(block: Json, receipts: list[Json]) -> None:
    receipts[0]["logsBloom"] = flip(receipts[0]["logsBloom"])


def alter_the_log_index(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[-1]["logIndex"] = hex(len(logs_in(receipts)))


def give_two_logs_one_index(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[1]["logIndex"] = "0x0"


def move_a_log_by_name(block: Json, receipts: list[Json]) -> None:
    other = next(tx["hash"] for tx in block["transactions"][::-1])
    log = next(log for log in logs_in(receipts) if log["transactionHash"] != other)
    log["transactionHash"] = other


def move_a_log_by_index(block: Json, receipts: list[Json]) -> None:
    log = logs_in(receipts)[0]
    log["transactionIndex"] = hex(int(log["transactionIndex"], 16) + 1)


def alter_a_logs_block(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[-1]["blockHash"] = flip(block["hash"])


def alter_a_logs_number(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[-1]["blockNumber"] = hex(int(block["number"], 16) + 1)


def remove_a_log(block: Json, receipts: list[Json]) -> None:
    logs_in(receipts)[-1]["removed"] = True


def truncate_receipts(block: Json, receipts: list[Json]) -> None:
    receipts.pop()


def repeat_a_receipt(block: Json, receipts: list[Json]) -> None:
    receipts.append(deepcopy(receipts[-1]))


def swap_two_receipts(block: Json, receipts: list[Json]) -> None:
    receipts[0], receipts[1] = receipts[1], receipts[0]


def receipts_of_another_block(block: Json, receipts: list[Json]) -> list[Json]:
    return devchain_payload(2)[1] + devchain_payload(1)[1]


def receipts_that_name_another_block(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["blockHash"] = flip(block["hash"])


def a_receipts_transaction(block: Json, receipts: list[Json]) -> None:
    receipts[0]["transactionHash"] = flip(receipts[0]["transactionHash"])


def a_receipts_sender(block: Json, receipts: list[Json]) -> None:
    receipts[0]["from"] = flip(receipts[0]["from"])


def a_receipts_callee(block: Json, receipts: list[Json]) -> None:
    at = [tx.get("to") is not None for tx in block["transactions"]].index(True)
    receipts[at]["to"] = flip(receipts[at]["to"])


def a_transactions_sender(block: Json, receipts: list[Json]) -> None:
    block["transactions"][-1]["from"] = flip(block["transactions"][-1]["from"])


def a_receipts_index(block: Json, receipts: list[Json]) -> None:
    receipts[0]["transactionIndex"] = "0x1"


def a_receipts_number(block: Json, receipts: list[Json]) -> None:
    receipts[0]["blockNumber"] = hex(int(block["number"], 16) + 1)


def a_receipts_type(block: Json, receipts: list[Json]) -> None:
    receipts[0]["type"] = "0x3" if block["transactions"][0].get("type") != "0x3" else "0x2"


def both_types(block: Json, receipts: list[Json]) -> None:
    block["transactions"][0]["type"] = receipts[0]["type"] = "0x3"


def a_type_beyond_this_version(block: Json, receipts: list[Json]) -> None:
    block["transactions"][0]["type"] = receipts[0]["type"] = "0x64"
    # Some nodes give it, as zeros, to every transaction; a type with one is a deposit.
    block["transactions"][0].pop("sourceHash", None)


def no_status(block: Json, receipts: list[Json]) -> None:
    receipts[0].pop("status", None)
    receipts[0].pop("root", None)


def drop_a_transaction(block: Json, receipts: list[Json]) -> None:
    block["transactions"].pop()


def drop_a_transaction_and_its_receipt(block: Json, receipts: list[Json]) -> None:
    block["transactions"].pop()
    receipts.pop()


def swap_two_transactions(block: Json, receipts: list[Json]) -> None:
    transactions = block["transactions"]
    transactions[0], transactions[1] = transactions[1], transactions[0]


def rename_a_transaction(block: Json, receipts: list[Json]) -> None:
    block["transactions"][0]["hash"] = flip(block["transactions"][0]["hash"])


def alter_the_blocks_hash(block: Json, receipts: list[Json]) -> None:
    block["hash"] = flip(block["hash"])


def alter_every_hash(block: Json, receipts: list[Json]) -> None:
    block["hash"] = flip(block["hash"])
    for part in (*receipts, *logs_in(receipts), *block["transactions"]):
        part["blockHash"] = block["hash"]


def an_unknown_header_field(block: Json, receipts: list[Json]) -> None:
    block["headerOfTomorrow"] = "0x" + "11" * 32
    block["extraData"] = flip(block["extraData"]) if len(block["extraData"]) > 2 else "0x11"


def _sent(block: Json, kinds: tuple[str, ...]) -> int:
    """The position of the first transaction of one of these types."""
    return [tx.get("type", "0x0") in kinds for tx in block["transactions"]].index(True)


def alter_a_sender(block: Json, receipts: list[Json]) -> None:
    block["transactions"][0]["from"] = flip(block["transactions"][0]["from"])
    receipts[0].pop("from", None)


def alter_a_sender_everywhere(block: Json, receipts: list[Json]) -> None:
    forged = flip(block["transactions"][-1]["from"])
    block["transactions"][-1]["from"] = receipts[-1]["from"] = forged


def alter_a_legacy_chain_id(block: Json, receipts: list[Json]) -> None:
    at = [int(tx["v"], 16) > 28 for tx in block["transactions"]].index(True)
    block["transactions"][at]["chainId"] = "0x5"


def alter_an_effective_price(block: Json, receipts: list[Json]) -> None:
    receipts[-1]["effectiveGasPrice"] = hex(int(receipts[-1]["effectiveGasPrice"], 16) + 1)


def alter_a_paid_price(block: Json, receipts: list[Json]) -> None:
    tx = block["transactions"][_sent(block, ("0x2", "0x3", "0x4"))]
    tx["gasPrice"] = hex(int(tx["gasPrice"], 16) + 1)


def invent_a_contract(block: Json, receipts: list[Json]) -> None:
    at = [tx.get("to") is not None for tx in block["transactions"]].index(True)
    receipts[at]["contractAddress"] = "0x" + "5a" * 20


def alter_a_created_contract(block: Json, receipts: list[Json]) -> None:
    at = [tx.get("to") is None for tx in block["transactions"]].index(True)
    receipts[at]["contractAddress"] = flip(receipts[at]["contractAddress"])


def forget_a_created_contract(block: Json, receipts: list[Json]) -> None:
    at = [tx.get("to") is None for tx in block["transactions"]].index(True)
    receipts[at]["contractAddress"] = None


def alter_the_blob_gas(block: Json, receipts: list[Json]) -> None:
    receipts[_sent(block, ("0x3",))]["blobGasUsed"] = "0x1"


REFUSED: list[tuple[Damage, type[HeadraceError]]] = [
    (drop_a_log, LogIndexGap),
    (drop_the_last_log, ReceiptsRootMismatch),
    (drop_a_log_and_renumber, ReceiptsRootMismatch),
    (drop_all_logs, ReceiptsRootMismatch),
    (duplicate_a_log, LogIndexGap),
    (duplicate_a_log_and_renumber, ReceiptsRootMismatch),
    (swap_two_logs, LogIndexGap),
    (alter_data, ReceiptsRootMismatch),
    (lengthen_data, ReceiptsRootMismatch),
    (alter_a_topic, ReceiptsRootMismatch),
    (drop_a_topic, ReceiptsRootMismatch),
    (alter_an_address, ReceiptsRootMismatch),
    (alter_the_status, ReceiptsRootMismatch),
    (add_gas_to_all, ReceiptsRootMismatch),
    (alter_gas_used, GasMismatch),
    (alter_a_receipts_bloom, BloomMismatch),
    (alter_the_log_index, LogIndexGap),
    (give_two_logs_one_index, LogIndexGap),
    (move_a_log_by_name, LogMisplaced),
    (move_a_log_by_index, LogMisplaced),
    (alter_a_logs_block, LogMisplaced),
    (alter_a_logs_number, LogMisplaced),
    (remove_a_log, LogRemoved),
    (truncate_receipts, ReceiptsCountMismatch),
    (repeat_a_receipt, ReceiptsCountMismatch),
    (swap_two_receipts, ReceiptMisplaced),
    (receipts_of_another_block, ReceiptsOfAnotherBlock),
    (receipts_that_name_another_block, ReceiptsOfAnotherBlock),
    (a_receipts_transaction, ReceiptMisplaced),
    (a_receipts_index, ReceiptMisplaced),
    (a_receipts_sender, ReceiptMisplaced),
    (a_receipts_callee, ReceiptMisplaced),
    (a_transactions_sender, ReceiptMisplaced),
    (a_receipts_number, ReceiptMisplaced),
    (a_receipts_type, ReceiptMisplaced),
    (both_types, ReceiptsRootMismatch),
    (a_type_beyond_this_version, ReceiptsNotProvable),
    (no_status, FieldMissing),
    (drop_a_transaction, ReceiptsCountMismatch),
    (drop_a_transaction_and_its_receipt, ReceiptsRootMismatch),
    (swap_two_transactions, TransactionMisplaced),
    (rename_a_transaction, ReceiptMisplaced),
    (alter_the_blocks_hash, BlockHashMismatch),
    (alter_every_hash, BlockHashMismatch),
    (an_unknown_header_field, UnknownHeaderFields),
]


REFUSED_AT_HEADER: list[tuple[Damage, type[HeadraceError]]] = [
    (drop_a_log, LogIndexGap),
    (drop_all_logs, LogsMissing),
    (duplicate_a_log, LogIndexGap),
    (swap_two_logs, LogIndexGap),
    (alter_a_topic, BloomMismatch),
    (alter_an_address, BloomMismatch),
    (add_gas_to_all, GasMismatch),
    (alter_gas_used, GasMismatch),
    (alter_the_log_index, LogIndexGap),
    (give_two_logs_one_index, LogIndexGap),
    (move_a_log_by_name, LogMisplaced),
    (move_a_log_by_index, LogMisplaced),
    (truncate_receipts, ReceiptsCountMismatch),
    (repeat_a_receipt, ReceiptsCountMismatch),
    (swap_two_receipts, ReceiptMisplaced),
    (a_receipts_transaction, ReceiptMisplaced),
    (a_receipts_index, ReceiptMisplaced),
    (a_receipts_sender, ReceiptMisplaced),
    (a_receipts_callee, ReceiptMisplaced),
    (a_transactions_sender, ReceiptMisplaced),
    (a_receipts_number, ReceiptMisplaced),
    (a_receipts_type, ReceiptMisplaced),
    (drop_a_transaction, ReceiptsCountMismatch),
    (drop_a_transaction_and_its_receipt, GasMismatch),
    (swap_two_transactions, TransactionMisplaced),
    (rename_a_transaction, ReceiptMisplaced),
]
"""What is found without a root: by blooms, gas, counts and positions."""


DERIVED: list[Damage] = [
    alter_a_sender,
    alter_a_sender_everywhere,
    alter_a_legacy_chain_id,
    alter_an_effective_price,
    alter_a_paid_price,
    invent_a_contract,
    alter_a_created_contract,
    forget_a_created_contract,
    alter_the_blob_gas,
]
"""What no root covers, and follows from what they do cover: refused at the level ``full``."""
