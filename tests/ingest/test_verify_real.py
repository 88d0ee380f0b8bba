"""Blocks of real chains are proven as far as their headers allow, and stored rows prove again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
import rlp

from ingest.build import BlockColumns
from ingest.keccak import keccak
from ingest.reprove import StoredRange, verify_stored
from ingest.trie import EMPTY_ROOT
from ingest.verify import ProvenSegment, prove_segment
from ingest.wire import decode_block
from schemas.chains import load_chains
from schemas.errors_verify import BlockHashMismatch, FieldMissing
from schemas.tables import Verification
from tests.ingest.both_ways import prove_both_ways
from tests.ingest.consensus import block_json, receipts_json
from tests.ingest.real_blocks import (
    CHAINDATA,
    Expected,
    devchain,
    devchain_payload,
    expected_blocks,
    io_pairs,
    load_payload,
    needs_chaindata,
    parsed,
    parsed_receipts,
)
from tests.ingest.snappy_frames import unframe

Json = dict[str, Any]
FULL = Verification.full


LOCAL = load_chains()["local"]


def stored(proven: ProvenSegment) -> StoredRange:
    columns: BlockColumns = proven.columns
    logs = None if proven.logs is None else proven.logs.logs
    return StoredRange(columns.blocks, columns.transactions, logs, columns.withdrawals)


def _prove(
    block: Json, receipts: list[Json] | None, level: Verification = FULL, **more: Any
) -> ProvenSegment:
    if receipts is None:
        return prove_segment([parsed(block)], None, level, **more)
    return prove_both_ways([parsed(block)], [parsed_receipts(receipts)], level, **more)


@needs_chaindata
def test_the_table_of_blocks_was_read() -> None:
    assert len(expected_blocks()) == len(list((CHAINDATA / "blocks").glob("*/*.json.gz"))) > 30


@needs_chaindata
@pytest.mark.parametrize("expected", expected_blocks(), ids=lambda expected: expected.id)
def test_a_block_is_proven_as_its_table_says(expected: Expected) -> None:
    block, receipts = load_payload(expected.chain, expected.number)
    if not expected.header:
        with pytest.raises(BlockHashMismatch):
            _prove(block, receipts, Verification.header)
        proven = _prove(block, receipts, Verification.off)
        assert proven.verdict.level == Verification.off
        assert proven.verdict.proven == ()
        return
    assert expected.transactions_root
    listed = expected.withdrawals_root is True
    proven = _prove(block, receipts, facts=replace(LOCAL, withdrawals_in_header=listed))
    words = {*proven.verdict.proven}
    assert {"header hash", "transactionsRoot", "transaction hashes"} <= words
    assert ("withdrawalsRoot" in words) == listed
    assert ("receiptsRoot" in words) == (expected.receipts_root is True)
    assert proven.verdict.level == (FULL if expected.receipts_root else Verification.header)
    assert proven.columns.transactions.rows == expected.transactions
    if expected.logs is not None:
        assert proven.logs is not None
        assert proven.logs.logs.rows == expected.logs
    assert proven.columns.blocks.columns["verification"].tolist() == [int(proven.verdict.level)]
    assert verify_stored(stored(proven)) == []


@needs_chaindata
@pytest.mark.parametrize("expected", expected_blocks(), ids=lambda expected: expected.id)
def test_every_block_is_stored_where_nothing_is_proven(expected: Expected) -> None:
    block, receipts = load_payload(expected.chain, expected.number)
    proven = _prove(block, receipts, Verification.off)
    assert proven.columns.transactions.rows == expected.transactions
    assert proven.logs is None or proven.logs.logs.rows == (expected.logs or 0)


@needs_chaindata
@pytest.mark.parametrize("level", list(Verification))
def test_each_level_says_what_it_leaves_out(level: Verification) -> None:
    verdict = _prove(*load_payload("mainnet", 17461634), level).verdict
    assert verdict.level == level
    roots = [word for word in verdict.proven if word.endswith("Root")]
    assert (
        roots
        == ["receiptsRoot", "transactionsRoot", "withdrawalsRoot"][
            : {Verification.receipts: 1, Verification.full: 3}.get(level, 0)
        ]
    )
    assert ("transactions" in verdict.unproven) == (level < FULL)
    left_out = [word for word in verdict.unproven if word.startswith("receipts and logs")]
    assert bool(left_out) == (level < Verification.receipts)


def _rechained(name: str) -> list[tuple[Json, list[Json]]]:
    text = gzip.decompress((CHAINDATA / "rechained" / name).read_bytes()).decode()
    payloads = [json.loads(line) for line in text.splitlines()]
    return [(payload["block"], payload["receipts"]) for payload in payloads]


@needs_chaindata
@pytest.mark.parametrize("name", ["chainA.jsonl.gz", "chainB_fork.jsonl.gz"])
def test_a_chain_of_blocks_is_one_proven_segment(name: str) -> None:
    payloads = _rechained(name)
    blocks = [parsed(block) for block, _ in payloads]
    receipts = [parsed_receipts(part) for _, part in payloads]
    proven = prove_segment(blocks, receipts, FULL)
    assert proven.verdict.level == FULL
    assert proven.verdict.unproven == ()
    assert verify_stored(stored(proven)) == []


def _execution_chain() -> list[Json]:
    raw, blocks = (CHAINDATA / "execution-apis" / "chain.rlp").read_bytes(), []
    while raw:
        decoded, _, size = rlp.codec.consume_item(raw, 0)
        blocks.append(block_json(decoded))
        raw = raw[size:]
    return blocks


@needs_chaindata
def test_the_execution_apis_chain_is_proven_through_every_fork() -> None:
    blocks = [parsed(block) for block in _execution_chain()]
    kinds = {tx.type for block in blocks for tx in block.transactions or [] if tx.type}
    assert kinds == {"0x0", "0x1", "0x2", "0x3", "0x4"}
    proven = prove_segment(blocks, None, FULL)
    assert proven.columns.transactions.rows == 249
    assert "transactionsRoot" in proven.verdict.proven
    assert "withdrawalsRoot" in proven.verdict.proven
    # No receipts were given, so the range must not pass for more than its headers.
    assert proven.verdict.level == Verification.header
    assert proven.columns.blocks.columns["log_count"].valid.any() == False  # noqa: E712


def _blocks_of_pairs() -> list[Json]:
    found = {}
    for method in ("eth_getBlockByNumber", "eth_getBlockByHash"):
        for _, response in io_pairs(CHAINDATA / "execution-apis" / method):
            result = response.get("result")
            if result:
                found[result["hash"]] = result
    return list(found.values())


@needs_chaindata
def test_blocks_as_a_node_serves_them_equal_those_of_its_chain() -> None:
    served = _blocks_of_pairs()
    assert len(served) >= 5
    chain = {block["hash"]: block for block in _execution_chain()}
    whole = 0
    for block in served:
        transactions = block["transactions"]
        hashes = [tx if isinstance(tx, str) else tx["hash"] for tx in transactions]
        if block["number"] != "0x0":
            assert [tx["hash"] for tx in chain[block["hash"]]["transactions"]] == hashes
        if hashes and hashes == transactions:
            assert "header hash" in _prove(block, None, Verification.header).verdict.proven
            with pytest.raises(FieldMissing, match="transactions"):
                _prove(block, None)
            continue
        assert "transactionsRoot" in _prove(block, None).verdict.proven
        whole += 1
    assert whole >= 3


@needs_chaindata
def test_receipts_as_a_node_serves_them_are_proven() -> None:
    chain = {block["hash"]: block for block in _execution_chain()}
    proved = 0
    for _, response in io_pairs(CHAINDATA / "execution-apis" / "eth_getBlockReceipts"):
        receipts = response.get("result")
        if receipts:
            proven = _prove(chain[receipts[0]["blockHash"]], receipts)
            assert proven.verdict.level == FULL
            assert verify_stored(stored(proven)) == []
            proved += 1
    assert proved >= 3


def _era_entries() -> list[tuple[int, bytes]]:
    [path] = (CHAINDATA / "sepolia_era1").glob("*.era1")
    raw, entries, at = path.read_bytes(), [], 0
    while at < len(raw):
        kind = int.from_bytes(raw[at : at + 2], "little")
        size = int.from_bytes(raw[at + 2 : at + 6], "little")
        entries.append((kind, raw[at + 8 : at + 8 + size]))
        at += 8 + size
    return entries


@needs_chaindata
def test_an_era_of_sepolia_is_proven_from_its_receipts_up() -> None:
    header, body, receipts = 0x03, 0x04, 0x05
    entries = _era_entries()
    parts = {
        kind: [rlp.decode(unframe(framed)) for found, framed in entries if found == kind]
        for kind in (header, body, receipts)
    }
    blocks, lists = [], []
    for head, (transactions, ommers), items in zip(*parts.values(), strict=True):
        block = block_json([head, transactions, ommers])
        assert keccak(rlp.encode(ommers)) == head[1]
        blocks.append(parsed(block))
        lists.append(parsed_receipts(receipts_json(items, block)))
    assert len(blocks) == 8192
    proven = prove_segment(blocks, lists, FULL)
    assert proven.verdict.level == FULL
    assert proven.columns.transactions.rows == 93
    assert verify_stored(stored(proven)) == []


@needs_chaindata
def test_blocks_of_other_tools_are_proven_by_their_headers() -> None:
    found = 0
    for path in sorted((CHAINDATA / "ethereum-etl").glob("**/*getBlockByNumber*.json")):
        payload = json.loads(path.read_text("utf-8"))
        for answer in payload if isinstance(payload, list) else [payload]:
            block = answer.get("result") or {}
            if "logsBloom" in block and "mixHash" in block:
                decoded = decode_block(json.dumps(block).encode())
                assert decoded is not None
                # The fixtures are cut: their headers are whole, some of their lists are not.
                proven = prove_segment([decoded], None, Verification.header)
                assert "header hash" in proven.verdict.proven
                found += 1
    assert found > 0


def test_devchain_blocks_are_proven_in_one_segment() -> None:
    payloads = [devchain_payload(number) for number in range(len(devchain().blocks()))]
    blocks = [parsed(block) for block, _ in payloads]
    receipts = [parsed_receipts(part) for _, part in payloads]
    proven = prove_segment(blocks, receipts, FULL)
    assert proven.verdict.level == FULL
    assert verify_stored(stored(proven)) == []
    empty = [block for block in blocks if not block.transactions]
    assert all(block.receipts_root == "0x" + EMPTY_ROOT.hex() for block in empty)


@pytest.mark.parametrize("name", sorted(load_chains()))
def test_every_chain_reaches_a_level_that_can_be_asked_for(name: str) -> None:
    facts = load_chains()[name]
    block, receipts = devchain_payload(1)
    proven = _prove(
        block,
        receipts,
        facts.verification_reached,
        facts=facts,
    )
    assert proven.verdict.level == facts.verification_reached
    says_so = any("withdrawalsRoot" in word for word in proven.verdict.unproven)
    assert says_so == (facts.verification_reached == FULL and not facts.withdrawals_in_header)
