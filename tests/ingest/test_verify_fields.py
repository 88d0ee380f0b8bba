"""Each field of header, transactions and withdrawals that is altered or left out is found."""

from __future__ import annotations

import pytest

from ingest.verify import prove_segment
from ingest.wire import HEADER_FIELDS
from schemas.errors_verify import (
    BlockHashMismatch,
    FieldMissing,
    ReceiptsNotProvable,
    TransactionHashMismatch,
    TransactionsRootMismatch,
    UnknownHeaderFields,
    WithdrawalsRootMismatch,
)
from schemas.tables import Verification
from tests.ingest.damages import (
    FULL,
    REAL,
    RECEIPTS,
    Json,
    a_type_beyond_this_version,
    an_unknown_header_field,
    flip,
    payload_of,
    prove,
)
from tests.ingest.other_headers import AMSTERDAM
from tests.ingest.real_blocks import (
    busy_block,
    devchain_payload,
    parsed,
)

OF_THE_DEVCHAIN = [name for name in HEADER_FIELDS if name not in AMSTERDAM]


@pytest.mark.parametrize("name", OF_THE_DEVCHAIN)
def test_an_altered_header_field_changes_the_hash(name: str) -> None:
    block, receipts = payload_of(("devchain", 0))
    block[name] = flip(block[name]) if len(block[name]) > 2 else "0x11"
    with pytest.raises(BlockHashMismatch):
        prove(block, receipts, Verification.header)


@pytest.mark.parametrize("name", OF_THE_DEVCHAIN[15:])
def test_a_header_field_left_out_changes_the_hash(name: str) -> None:
    block, receipts = payload_of(("devchain", 0))
    del block[name]
    with pytest.raises(BlockHashMismatch):
        prove(block, receipts, Verification.header)


def test_unknown_fields_are_said_and_kept_where_nothing_is_proven() -> None:
    block, receipts = payload_of(("devchain", 0))
    an_unknown_header_field(block, receipts)
    with pytest.raises(UnknownHeaderFields, match="unknown to this version: headerOfTomorrow"):
        prove(block, receipts, Verification.header)
    proven = prove(block, receipts, Verification.off)
    kept = proven.columns.blocks.columns["extra"].values.tobytes()
    assert kept == b'{"headerOfTomorrow":"0x' + b"11" * 32 + b'"}'


def test_a_field_beside_the_header_is_no_obstacle() -> None:
    block, receipts = payload_of(("devchain", 0))
    proven = prove(block | {"somethingElse": [1, 2]}, receipts, FULL)
    assert proven.verdict.level == FULL
    assert proven.columns.blocks.columns["extra"].offsets.tolist() == [0, 0]


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
    block, receipts = payload_of(("devchain", 0))
    index = _transactions_with(block, name)[0]
    tx = block["transactions"][index]
    tx[name] = flip(tx[name]) if len(tx[name]) > 2 else "0x11"
    if name == "to":
        receipts[index][name] = tx[name]
    # What `receipts` does not prove it says so, and lets it pass.
    assert "transactions" in prove(block, receipts, RECEIPTS).verdict.unproven
    with pytest.raises(TransactionsRootMismatch):
        prove(block, receipts, FULL)


def _rename_everywhere(block: Json, receipts: list[Json]) -> None:
    renamed = flip(block["transactions"][0]["hash"])
    block["transactions"][0]["hash"] = receipts[0]["transactionHash"] = renamed
    for log in receipts[0]["logs"]:
        log["transactionHash"] = renamed


def test_a_transaction_renamed_everywhere_is_refused_at_full() -> None:
    block, receipts = payload_of(("devchain", 0))
    _rename_everywhere(block, receipts)
    assert prove(block, receipts, RECEIPTS).verdict.level == RECEIPTS
    with pytest.raises(TransactionHashMismatch, match="transaction 0"):
        prove(block, receipts, FULL)


def test_a_transaction_without_a_field_of_its_type_is_refused_at_full() -> None:
    block, receipts = payload_of(("devchain", 0))
    del block["transactions"][0]["s"]
    with pytest.raises(FieldMissing, match="transaction 0"):
        prove(block, receipts, FULL)


@pytest.mark.parametrize("name", ["index", "validatorIndex", "address", "amount"])
def test_an_altered_withdrawal_is_refused_at_full(name: str) -> None:
    block, receipts = payload_of(("devchain", 0))
    block["withdrawals"][-1][name] = flip(block["withdrawals"][-1][name])
    with pytest.raises(WithdrawalsRootMismatch):
        prove(block, receipts, FULL)


@pytest.mark.parametrize("change", ["drop", "double", "all", "none given"])
def test_withdrawals_left_out_or_doubled_are_refused_at_full(change: str) -> None:
    block, receipts = payload_of(("devchain", 0))
    own = block["withdrawals"]
    lists = {"drop": own[:-1], "double": [*own, own[-1]], "all": [], "none given": None}
    block["withdrawals"] = lists[change]
    with pytest.raises(FieldMissing if change == "none given" else WithdrawalsRootMismatch):
        prove(block, receipts, FULL)


def test_withdrawals_of_a_header_that_has_none_are_refused() -> None:
    sources = [row for row in REAL if row[1] < 17_000_000]
    if not sources:
        pytest.skip("needs a block from before Shanghai, which only the chain data has")
    block, receipts = payload_of(sources[0])
    block["withdrawals"] = devchain_payload(busy_block())[0]["withdrawals"]
    with pytest.raises(WithdrawalsRootMismatch, match="nothing"):
        prove(block, receipts, FULL)


def test_an_unknown_type_lowers_the_level_and_is_said() -> None:
    block, receipts = payload_of(("devchain", 0))
    block["transactions"][0]["type"] = "0x64"
    proven = prove_segment([parsed(block)], None, FULL)
    assert proven.verdict.level == Verification.header
    assert "transactions: types unknown to this version: 0x64" in proven.verdict.unproven
    assert "transactionsRoot" not in proven.verdict.proven
    a_type_beyond_this_version(block, receipts)
    with pytest.raises(ReceiptsNotProvable, match="types 0x64"):
        prove(block, receipts, FULL)
