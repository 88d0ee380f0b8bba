"""Headers of other forms than Ethereum's: proven where they can be, stored at `off`, else named."""

from __future__ import annotations

import msgspec
import pytest

from ingest.reprove import StoredRange, Violation, verify_stored
from ingest.verify import ProvenSegment, prove_segment
from ingest.wire import HEADER_FIELDS
from schemas.columns import to_python
from schemas.errors_verify import (
    BlockHashMismatch,
    HeaderNotProvable,
    HexMalformed,
    UnknownHeaderFields,
)
from schemas.tables import BLOCKS, Verification
from tests.ingest.damages import FULL, Json, flip, prove
from tests.ingest.other_headers import AMSTERDAM, SIGNATURE, STEP, amsterdam_block, aura_block
from tests.ingest.real_blocks import devchain_payload, parsed

REQUIRED = ("number", "parentHash", "timestamp")
COLUMNS = {
    "sha3Uncles": "ommers_hash",
    "miner": "miner",
    "stateRoot": "state_root",
    "transactionsRoot": "transactions_root",
    "receiptsRoot": "receipts_root",
    "logsBloom": "logs_bloom",
    "difficulty": "difficulty",
    "gasLimit": "gas_limit",
    "gasUsed": "gas_used",
    "extraData": "extra_data",
    "mixHash": "mix_hash",
    "nonce": "nonce",
    "baseFeePerGas": "base_fee_per_gas_wei",
    "withdrawalsRoot": "withdrawals_root",
    "blobGasUsed": "blob_gas_used",
    "excessBlobGas": "excess_blob_gas",
    "parentBeaconBlockRoot": "parent_beacon_block_root",
    "requestsHash": "requests_hash",
}


def _cell(block: Json, receipts: list[Json], column: str) -> object:
    proven = prove(block, receipts, Verification.off)
    [value] = to_python(BLOCKS.column(column).kind, proven.columns.blocks.columns[column])
    return value


def _violations(proven: ProvenSegment) -> list[Violation]:
    columns = proven.columns
    assert proven.logs is not None
    logs = proven.logs.logs
    return verify_stored(
        StoredRange(columns.blocks, columns.transactions, logs, columns.withdrawals)
    )


def test_headers_of_amsterdam_are_proven() -> None:
    block, receipts = amsterdam_block()
    proven = prove(block, receipts, FULL)
    assert proven.verdict.level == FULL
    header = proven.columns.blocks.columns
    assert header["slot_number"].values.tolist() == [42]
    assert bytes(header["block_access_list_hash"].values[0]) == b"\x7b" * 32
    assert _violations(proven) == []
    for name in AMSTERDAM:
        for altered in (block | {name: flip(block[name])}, block | {name: None}):
            with pytest.raises(BlockHashMismatch):
                prove(altered, receipts, Verification.header)


def test_headers_with_the_seal_of_aura_are_proven() -> None:
    block, receipts = aura_block()
    for nonce in ({}, {"nonce": "0x0"}, {"mixHash": None, "nonce": None}):
        proven = prove(block | nonce, receipts, FULL)
        assert proven.verdict.level == FULL
        assert not proven.columns.blocks.columns["nonce"].valid.any()
        assert _violations(proven) == []
    altered = block | {"sealFields": ["0x" + STEP.hex(), flip("0x" + SIGNATURE.hex())]}
    with pytest.raises(BlockHashMismatch):
        prove(altered, receipts, Verification.header)


@pytest.mark.parametrize("hidden", [0, 2])
def test_a_seal_hides_no_other_field(hidden: int) -> None:
    """Items behind the seal, or mix hash and nonce, must not vanish from their columns."""
    block, receipts = devchain_payload(1)
    names = HEADER_FIELDS[13 : 15 + hidden]
    sizes = {"mixHash": "a0", "nonce": "88", "baseFeePerGas": "84", "withdrawalsRoot": "a0"}
    items = [sizes[name] + block.pop(name)[2:] for name in names]
    for seal in (items, [items[0], "".join(items[1:])]):
        with pytest.raises(HeaderNotProvable):
            prove(block | {"sealFields": ["0x" + item for item in seal]}, receipts, FULL)


@pytest.mark.parametrize("value", [None, "0x0z", "0x" + "1" * 600])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_header_field_that_fits_no_column_is_null_and_kept(name: str, value: str | None) -> None:
    block, receipts = devchain_payload(3)
    if name == "extraData" and value and "z" not in value:
        value += "1"
    altered = block | {name: value}
    assert _cell(altered, receipts, COLUMNS[name]) is None
    kept = {} if value is None else {name: value}
    assert msgspec.json.decode(_cell(altered, receipts, "extra") or b"{}") == kept
    needed = HEADER_FIELDS.index(name) < 15
    refusal = HeaderNotProvable if needed or value else BlockHashMismatch
    with pytest.raises(refusal, match=f"(block 3 .*{name})|hashes to") as caught:
        prove(altered, receipts, Verification.header)
    assert "--verify off" in caught.value.fix_text or refusal is BlockHashMismatch


def test_what_every_block_needs_is_refused_by_name() -> None:
    block, receipts = devchain_payload(3)
    for name in REQUIRED:
        with pytest.raises(HexMalformed):
            prove(block | {name: "0xzz"}, receipts, Verification.off)


def test_an_unknown_header_field_names_block_field_and_level() -> None:
    block, _ = devchain_payload(3)
    del block["requestsHash"]
    with pytest.raises(UnknownHeaderFields, match=r"block 3 .*ofTomorrow") as caught:
        prove_segment([parsed(block | {"ofTomorrow": 1})], None, Verification.header)
    assert "--verify off" in caught.value.fix_text
