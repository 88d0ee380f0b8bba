"""Each damaged copy of a block is refused, and for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.build import build_header_columns
from ingest.proofs import header_hashes
from ingest.verify import ProvenSegment, check_headers, prove_segment
from ingest.wire import HEADER_FIELDS
from schemas.columns import ColumnBlock
from schemas.errors import HeadraceError
from schemas.errors_verify import (
    BlockHashMismatch,
    BlockNumberGap,
    BloomMismatch,
    FieldMissing,
    GasMismatch,
    LogIndexGap,
    LogMisplaced,
    LogRemoved,
    ParentMismatch,
    ReceiptMisplaced,
    ReceiptsCountMismatch,
    ReceiptsOfAnotherBlock,
    ReceiptsRootMismatch,
    TransactionHashMismatch,
    TransactionMisplaced,
    TransactionsRootMismatch,
    UnknownHeaderFields,
    WithdrawalsRootMismatch,
)
from schemas.tables import Verification
from tests.ingest.both_ways import prove_both_ways
from tests.ingest.real_blocks import (
    MISSING,
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


def _payload(source: tuple[str, int]) -> Payload:
    if source[0] == "devchain":
        return devchain_payload(busy_block())
    block, receipts = load_payload(*source)
    assert receipts is not None
    return block, receipts


def _prove(block: Json, receipts: list[Json], level: Verification = RECEIPTS) -> ProvenSegment:
    return prove_both_ways([parsed(block)], [parsed_receipts(receipts)], level)


def _flip(text: str) -> str:
    """Another value of the same width; zero becomes one."""
    return text[:-1] + ("1" if text[-1] != "1" else "2")


def _logs(receipts: list[Json]) -> list[Json]:
    return [log for receipt in receipts for log in receipt["logs"]]


def _owner(receipts: list[Json]) -> Json:
    """The receipt with most logs."""
    return max(receipts, key=lambda receipt: len(receipt["logs"]))


def _renumber(receipts: list[Json]) -> None:
    """What a careful liar does: log indexes count up again."""
    for index, log in enumerate(_logs(receipts)):
        log["logIndex"] = hex(index)


def drop_a_log(block: Json, receipts: list[Json]) -> None:
    del receipts[[len(r["logs"]) > 0 for r in receipts].index(True)]["logs"][0]


def drop_the_last_log(block: Json, receipts: list[Json]) -> None:
    [r for r in receipts if r["logs"]][-1]["logs"].pop()


def drop_a_log_and_renumber(block: Json, receipts: list[Json]) -> None:
    drop_a_log(block, receipts)
    _renumber(receipts)


def drop_all_logs(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["logs"] = []


def duplicate_a_log(block: Json, receipts: list[Json]) -> None:
    logs = _owner(receipts)["logs"]
    logs.insert(1, deepcopy(logs[0]))


def duplicate_a_log_and_renumber(block: Json, receipts: list[Json]) -> None:
    duplicate_a_log(block, receipts)
    _renumber(receipts)


def swap_two_logs(block: Json, receipts: list[Json]) -> None:
    logs = _owner(receipts)["logs"]
    logs[0], logs[1] = logs[1], logs[0]


def alter_data(block: Json, receipts: list[Json]) -> None:
    log = next(log for log in _logs(receipts) if len(log["data"]) > 2)
    log["data"] = _flip(log["data"])


def lengthen_data(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[0]["data"] += "00"


def alter_a_topic(block: Json, receipts: list[Json]) -> None:
    log = next(log for log in _logs(receipts) if log["topics"])
    log["topics"][-1] = _flip(log["topics"][-1])


def drop_a_topic(block: Json, receipts: list[Json]) -> None:
    next(log for log in _logs(receipts) if log["topics"])["topics"].pop()


def alter_an_address(block: Json, receipts: list[Json]) -> None:
    log = _logs(receipts)[-1]
    log["address"] = _flip(log["address"])


def alter_the_status(block: Json, receipts: list[Json]) -> None:
    receipt = receipts[0]
    if "root" in receipt and "status" not in receipt:
        receipt["root"] = _flip(receipt["root"])
    else:
        receipt["status"] = "0x0" if receipt["status"] == "0x1" else "0x1"


def add_gas_to_all(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["cumulativeGasUsed"] = hex(int(receipt["cumulativeGasUsed"], 16) + 1)


def alter_gas_used(block: Json, receipts: list[Json]) -> None:
    receipts[-1]["gasUsed"] = hex(int(receipts[-1]["gasUsed"], 16) + 1)


def alter_a_receipts_bloom(block: Json, receipts: list[Json]) -> None:
    receipts[0]["logsBloom"] = _flip(receipts[0]["logsBloom"])


def alter_the_log_index(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[-1]["logIndex"] = hex(len(_logs(receipts)))


def give_two_logs_one_index(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[1]["logIndex"] = "0x0"


def move_a_log_by_name(block: Json, receipts: list[Json]) -> None:
    other = next(tx["hash"] for tx in block["transactions"][::-1])
    log = next(log for log in _logs(receipts) if log["transactionHash"] != other)
    log["transactionHash"] = other


def move_a_log_by_index(block: Json, receipts: list[Json]) -> None:
    log = _logs(receipts)[0]
    log["transactionIndex"] = hex(int(log["transactionIndex"], 16) + 1)


def alter_a_logs_block(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[-1]["blockHash"] = _flip(block["hash"])


def alter_a_logs_number(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[-1]["blockNumber"] = hex(int(block["number"], 16) + 1)


def remove_a_log(block: Json, receipts: list[Json]) -> None:
    _logs(receipts)[-1]["removed"] = True


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
        receipt["blockHash"] = _flip(block["hash"])


def a_receipts_transaction(block: Json, receipts: list[Json]) -> None:
    receipts[0]["transactionHash"] = _flip(receipts[0]["transactionHash"])


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
    block["transactions"][0]["hash"] = _flip(block["transactions"][0]["hash"])


def alter_the_blocks_hash(block: Json, receipts: list[Json]) -> None:
    block["hash"] = _flip(block["hash"])


def alter_every_hash(block: Json, receipts: list[Json]) -> None:
    block["hash"] = _flip(block["hash"])
    for part in (*receipts, *_logs(receipts), *block["transactions"]):
        part["blockHash"] = block["hash"]


def an_unknown_header_field(block: Json, receipts: list[Json]) -> None:
    block["blockAccessListHash"] = "0x" + "11" * 32
    block["extraData"] = _flip(block["extraData"]) if len(block["extraData"]) > 2 else "0x11"


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
    (a_receipts_number, ReceiptMisplaced),
    (a_receipts_type, ReceiptMisplaced),
    (both_types, ReceiptsRootMismatch),
    (a_type_beyond_this_version, ReceiptsRootMismatch),
    (no_status, FieldMissing),
    (drop_a_transaction, ReceiptsCountMismatch),
    (drop_a_transaction_and_its_receipt, ReceiptsRootMismatch),
    (swap_two_transactions, TransactionMisplaced),
    (rename_a_transaction, ReceiptMisplaced),
    (alter_the_blocks_hash, BlockHashMismatch),
    (alter_every_hash, BlockHashMismatch),
    (an_unknown_header_field, UnknownHeaderFields),
]


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: f"{source[0]}-{source[1]}")
@pytest.mark.parametrize(("damage", "reason"), REFUSED, ids=lambda part: part.__name__)
def test_damage_is_refused_for_its_own_reason(
    source: tuple[str, int], damage: Damage, reason: type[HeadraceError]
) -> None:
    block, receipts = _payload(source)
    given_hash, number = block["hash"], int(block["number"], 16)
    receipts = damage(block, receipts) or receipts
    with pytest.raises(HeadraceError) as caught:
        _prove(block, receipts)
    assert type(caught.value) is reason, str(caught.value)
    assert caught.value.data["number"] == str(number)
    assert caught.value.data["hash"] in (given_hash, block["hash"])
    assert caught.value.why_text
    assert caught.value.fix_text


@pytest.mark.parametrize("name", [*HEADER_FIELDS])
def test_an_altered_header_field_changes_the_hash(name: str) -> None:
    block, receipts = _payload(("devchain", 0))
    assert name in block, "the devchain's headers are of the newest fork"
    block[name] = _flip(block[name]) if len(block[name]) > 2 else "0x11"
    with pytest.raises(BlockHashMismatch):
        _prove(block, receipts, Verification.header)


@pytest.mark.parametrize("name", HEADER_FIELDS[15:])
def test_a_header_field_left_out_changes_the_hash(name: str) -> None:
    block, receipts = _payload(("devchain", 0))
    del block[name]
    with pytest.raises(BlockHashMismatch):
        _prove(block, receipts, Verification.header)


def test_unknown_fields_are_said_and_kept_where_nothing_is_proven() -> None:
    block, receipts = _payload(("devchain", 0))
    an_unknown_header_field(block, receipts)
    with pytest.raises(UnknownHeaderFields, match="unknown to this version: blockAccessListHash"):
        _prove(block, receipts, Verification.header)
    proven = _prove(block, receipts, Verification.off)
    kept = proven.columns.blocks.columns["unknown_fields"].values.tobytes()
    assert kept == b'{"blockAccessListHash":"0x' + b"11" * 32 + b'"}'


def test_a_field_beside_the_header_is_no_obstacle() -> None:
    block, receipts = _payload(("devchain", 0))
    proven = _prove(block | {"somethingElse": [1, 2]}, receipts, FULL)
    assert proven.verdict.level == FULL
    assert proven.columns.blocks.columns["unknown_fields"].offsets.tolist() == [0, 0]


TRANSACTION_FIELDS = [
    "nonce",
    "value",
    "gas",
    "input",
    "to",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "chainId",
    "v",
    "r",
    "s",
    "yParity",
]


def _transactions_with(block: Json, name: str) -> list[int]:
    """Where a field is under the hash of its transaction."""
    found = []
    for index, tx in enumerate(block["transactions"]):
        typed, fees = tx["type"] != "0x0", tx["type"] in ("0x2", "0x3", "0x4")
        covered = {
            "gasPrice": not fees,
            "chainId": typed,
            "v": not typed,
            "yParity": typed,
        }.get(name, True)
        if covered and tx.get(name) is not None:
            found.append(index)
    return found


@pytest.mark.parametrize("name", TRANSACTION_FIELDS)
def test_an_altered_transaction_is_refused_at_full(name: str) -> None:
    block, receipts = _payload(("devchain", 0))
    index = _transactions_with(block, name)[0]
    tx = block["transactions"][index]
    tx[name] = _flip(tx[name]) if len(tx[name]) > 2 else "0x11"
    # What `receipts` does not prove it says so, and lets it pass.
    assert "transactions" in _prove(block, receipts, RECEIPTS).verdict.unproven
    with pytest.raises(TransactionsRootMismatch):
        _prove(block, receipts, FULL)


def _rename_everywhere(block: Json, receipts: list[Json]) -> None:
    renamed = _flip(block["transactions"][0]["hash"])
    block["transactions"][0]["hash"] = receipts[0]["transactionHash"] = renamed
    for log in receipts[0]["logs"]:
        log["transactionHash"] = renamed


def test_a_transaction_renamed_everywhere_is_refused_at_full() -> None:
    block, receipts = _payload(("devchain", 0))
    _rename_everywhere(block, receipts)
    assert _prove(block, receipts, RECEIPTS).verdict.level == RECEIPTS
    with pytest.raises(TransactionHashMismatch, match="transaction 0"):
        _prove(block, receipts, FULL)


def test_a_transaction_without_a_field_of_its_type_is_refused_at_full() -> None:
    block, receipts = _payload(("devchain", 0))
    del block["transactions"][0]["s"]
    with pytest.raises(FieldMissing, match="transaction 0"):
        _prove(block, receipts, FULL)


@pytest.mark.parametrize("name", ["index", "validatorIndex", "address", "amount"])
def test_an_altered_withdrawal_is_refused_at_full(name: str) -> None:
    block, receipts = _payload(("devchain", 0))
    block["withdrawals"][-1][name] = _flip(block["withdrawals"][-1][name])
    with pytest.raises(WithdrawalsRootMismatch):
        _prove(block, receipts, FULL)


@pytest.mark.parametrize("change", ["drop", "double", "all", "none given"])
def test_withdrawals_left_out_or_doubled_are_refused_at_full(change: str) -> None:
    block, receipts = _payload(("devchain", 0))
    own = block["withdrawals"]
    lists = {"drop": own[:-1], "double": [*own, own[-1]], "all": [], "none given": None}
    block["withdrawals"] = lists[change]
    with pytest.raises(FieldMissing if change == "none given" else WithdrawalsRootMismatch):
        _prove(block, receipts, FULL)


def test_withdrawals_of_a_header_that_has_none_are_refused() -> None:
    sources = [row for row in REAL if row[1] < 17_000_000]
    if not sources:
        pytest.skip("needs a block from before Shanghai, which only the chain data has")
    block, receipts = _payload(sources[0])
    block["withdrawals"] = devchain_payload(busy_block())[0]["withdrawals"]
    with pytest.raises(WithdrawalsRootMismatch, match="nothing"):
        _prove(block, receipts, FULL)


def test_an_unknown_type_lowers_the_level_and_is_said() -> None:
    block, receipts = _payload(("devchain", 0))
    block["transactions"][0]["type"] = "0x64"
    proven = prove_segment([parsed(block)], None, FULL)
    assert proven.verdict.level == Verification.header
    assert "transactions: types unknown to this version: 0x64" in proven.verdict.unproven
    assert "transactionsRoot" not in proven.verdict.proven
    a_type_beyond_this_version(block, receipts)
    with pytest.raises(ReceiptsRootMismatch) as caught:
        _prove(block, receipts, FULL)
    assert "[100]" in caught.value.why_text


def _prove_all(payloads: list[Payload], level: Verification = FULL) -> ProvenSegment:
    blocks = [parsed(block) for block, _ in payloads]
    return prove_both_ways(blocks, [parsed_receipts(part) for _, part in payloads], level)


def test_blocks_out_of_order_or_missing_are_refused() -> None:
    first, second, third = (devchain_payload(number) for number in (3, 4, 5))
    assert _prove_all([first, second, third]).verdict.level == FULL
    with pytest.raises(BlockNumberGap, match="block 4 was due"):
        _prove_all([first, third])
    with pytest.raises(BlockNumberGap):
        _prove_all([second, first])
    with pytest.raises(BlockNumberGap):
        _prove_all([first, first])


def test_receipts_swapped_between_blocks_are_refused() -> None:
    (first, own), (second, other) = devchain_payload(busy_block()), devchain_payload(2)
    assert first["hash"] != second["hash"]
    with pytest.raises(ReceiptsOfAnotherBlock):
        _prove(first, other)
    with pytest.raises(ReceiptsOfAnotherBlock):
        _prove(second, own)


def test_a_block_of_another_branch_is_refused() -> None:
    first, _ = devchain_payload(3)
    second, _ = devchain_payload(4)
    second["parentHash"] = _flip(first["hash"])
    decoded = [parsed(first), parsed(second)]
    columns = build_header_columns(decoded)
    hashes = header_hashes(ColumnBlock("blocks", 2, columns))
    decoded[1].hash = "0x" + hashes[1].hex()
    with pytest.raises(ParentMismatch, match="block 3 is"):
        check_headers(decoded, build_header_columns(decoded), Verification.header)


@pytest.mark.skipif(not REAL, reason=MISSING)
def test_two_neighbours_of_mainnet_are_linked() -> None:
    payloads = [_payload(("mainnet", number)) for number in (16_000_000, 16_000_001)]
    assert _prove_all(payloads, FULL).verdict.level == FULL


@pytest.mark.parametrize("level", [Verification.off, Verification.header])
def test_lower_levels_still_refuse_logs_of_elsewhere(level: Verification) -> None:
    block, receipts = _payload(("devchain", 0))
    for damage, reason in (
        (alter_a_logs_block, LogMisplaced),
        (move_a_log_by_name, LogMisplaced),
        (receipts_of_another_block, ReceiptsOfAnotherBlock),
        (give_two_logs_one_index, LogIndexGap),
        (remove_a_log, LogRemoved),
    ):
        damaged, parts = deepcopy(block), deepcopy(receipts)
        parts = damage(damaged, parts) or parts
        with pytest.raises(reason):
            _prove(damaged, parts, level)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in _leaves(part, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, part in enumerate(value) for leaf in _leaves(part, (*path, key))]
    return [path] if isinstance(value, str) else []


UNPROVEN_IN_RECEIPTS = {"from", "to", "effectiveGasPrice", "contractAddress", "blockTimestamp"}
UNPROVEN_IN_RECEIPTS |= {"blobGasUsed", "blobGasPrice"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_altered_text_of_any_receipt_is_refused(data: st.DataObject) -> None:
    block, receipts = _payload(("devchain", 0))
    leaves = [path for path in _leaves(receipts) if path[-1] not in UNPROVEN_IN_RECEIPTS]
    path = data.draw(st.sampled_from(leaves))
    owner: Any = receipts
    for key in path[:-1]:
        owner = owner[key]
    text = owner[path[-1]]
    at = data.draw(st.integers(2, len(text) - 1)) if len(text) > 2 else None
    if at is None:
        owner[path[-1]] = "0x00"
    else:
        digit = data.draw(st.sampled_from([d for d in "0123456789abcdef" if d != text[at]]))
        owner[path[-1]] = text[:at] + digit + text[at + 1 :]
    with pytest.raises(HeadraceError) as caught:
        _prove(block, receipts)
    assert caught.value.code.startswith("HR-22")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_reshuffled_logs_are_refused(data: st.DataObject) -> None:
    block, receipts = _payload(("devchain", 0))
    logs = _logs(receipts)
    chosen = data.draw(
        st.lists(st.sampled_from(range(len(logs))), max_size=len(logs) + 2).filter(
            lambda order: order != list(range(len(logs)))
        )
    )
    flat, at = [deepcopy(logs[index]) for index in chosen], 0
    for index, receipt in enumerate(receipts):
        size = len(receipt["logs"]) if index < len(receipts) - 1 else len(flat)
        receipt["logs"] = flat[at : at + size]
        at += size
        for log in receipt["logs"]:
            log["transactionHash"] = receipt["transactionHash"]
            log["transactionIndex"] = receipt["transactionIndex"]
    _renumber(receipts)
    if [_content(log) for log in _logs(receipts)] == [_content(log) for log in logs]:
        return
    with pytest.raises((ReceiptsRootMismatch, BloomMismatch)):
        _prove(block, receipts)


def _content(log: Json) -> tuple[Any, ...]:
    return log["address"], tuple(log["topics"]), log["data"], log["transactionHash"]
