"""Sealed blocks against hashes, roots and blooms that other code computes."""

import itertools
import json
from collections import Counter

import pytest
import rlp
from eth_account.typed_transactions import TypedTransaction
from eth_utils import keccak
from hexbytes import HexBytes

from infra.devchain import Budget, Chain, Spec
from infra.devchain.blocks import blob_gas_price
from infra.devchain.planning import plan_block
from tests.infra.devchain import oracles

BLOCKS = 120


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(Spec(seed=11, budget=Budget(25, 90)))
    made.mine(BLOCKS)
    made.reorg(30)
    return made


@pytest.fixture(scope="module")
def rendered(chain: Chain) -> list[tuple[dict, list]]:
    views = [chain.view.at(number) for number in range(chain.view.head + 1)]
    return [(json.loads(block.full), json.loads(block.receipts)) for block in views if block]


def test_headers_hash_and_link(rendered):
    parent = bytes(32)
    for height, (block, _) in enumerate(rendered):
        assert oracles.number(block["number"]) == height
        assert oracles.raw(block["parentHash"]) == parent
        parent = oracles.header_hash(block)
        assert oracles.raw(block["hash"]) == parent


def test_roots_are_those_of_the_tries(rendered):
    for block, receipts in rendered:
        transactions = [oracles.encode_transaction(sent) for sent in block["transactions"]]
        withdrawals = [oracles.encode_withdrawal(paid) for paid in block["withdrawals"]]
        bodies = [oracles.encode_receipt(receipt) for receipt in receipts]
        for name, values in (
            ("transactionsRoot", transactions),
            ("withdrawalsRoot", withdrawals),
            ("receiptsRoot", bodies),
        ):
            assert oracles.raw(block[name]) == oracles.trie_root(values), (block["number"], name)


def test_blooms_hold_addresses_and_topics(rendered):
    for block, receipts in rendered:
        for receipt in receipts:
            assert oracles.raw(receipt["logsBloom"]) == oracles.bloom_of(receipt["logs"])
        logs = [log for receipt in receipts for log in receipt["logs"]]
        assert oracles.raw(block["logsBloom"]) == oracles.bloom_of(logs)


def test_transaction_hashes_and_what_eth_account_reads(rendered):
    kinds = Counter()
    for block, _ in rendered:
        for sent in block["transactions"]:
            encoded = oracles.encode_transaction(sent)
            assert keccak(encoded) == oracles.raw(sent["hash"])
            kind = oracles.number(sent["type"])
            kinds[kind] += 1
            if kind == 0:
                continue
            read = TypedTransaction.from_bytes(HexBytes(encoded)).as_dict()
            assert read["nonce"] == oracles.number(sent["nonce"])
            assert HexBytes(read["data"]) == oracles.raw(sent["input"])
            assert HexBytes(read["to"]) == oracles.raw(sent["to"])
            assert len(read["accessList"]) == len(sent["accessList"])
            if kind == 4:
                assert len(read["authorizationList"]) == len(sent["authorizationList"]) > 0
            if kind == 3:
                hashes = [HexBytes(versioned) for versioned in read["blobVersionedHashes"]]
                assert hashes == [oracles.raw(h) for h in sent["blobVersionedHashes"]]
    assert set(kinds) == {0, 1, 2, 3, 4}
    assert kinds[2] > sum(kinds.values()) / 2


def test_places_and_gas_add_up(rendered):
    for block, receipts in rendered:
        place = (block["number"], block["hash"])
        log_index = cumulative = blobs = 0
        for index, (sent, receipt) in enumerate(zip(block["transactions"], receipts, strict=True)):
            assert (sent["blockNumber"], sent["blockHash"]) == place
            assert oracles.number(sent["transactionIndex"]) == index
            assert receipt["transactionHash"] == sent["hash"]
            cumulative += oracles.number(receipt["gasUsed"])
            assert oracles.number(receipt["cumulativeGasUsed"]) == cumulative
            assert oracles.number(sent["gas"]) >= oracles.number(receipt["gasUsed"])
            paid = oracles.number(receipt["effectiveGasPrice"])
            assert paid >= oracles.number(block["baseFeePerGas"])
            blobs += oracles.number(receipt.get("blobGasUsed", "0x0"))
            if receipt["status"] == "0x0":
                assert receipt["logs"] == []
            for log in receipt["logs"]:
                assert oracles.number(log["logIndex"]) == log_index
                assert (log["blockNumber"], log["blockHash"]) == place
                assert log["transactionHash"] == sent["hash"]
                log_index += 1
        assert oracles.number(block["gasUsed"]) == cumulative
        assert oracles.number(block["blobGasUsed"]) == blobs <= 9 << 17


def test_a_chain_has_what_real_chains_have(chain):
    sent = [transaction for block in chain.blocks() for transaction in block.transactions]
    assert any(not transaction.status for transaction in sent)
    assert any(transaction.contract_address for transaction in sent)
    assert any(not block.transactions for block in chain.blocks()[1:])
    assert any(not block.withdrawals for block in chain.blocks()[1:])
    logs = [log for transaction in sent for log in transaction.logs]
    assert {len(log.topics) for log in logs} == {0, 1, 2, 3, 4}
    assert any(not log.data for log in logs)


def test_fees_follow_eip_1559(chain):
    blocks = chain.blocks()
    for parent, block in itertools.pairwise(blocks):
        before, used = parent.header.base_fee, parent.header.gas_used
        target = parent.header.gas_limit // 2
        delta = before * abs(used - target) // target // 8
        expected = before + max(delta, 1) if used > target else before - delta
        assert block.header.base_fee == expected
        assert used <= parent.header.gas_limit


def test_blob_gas_price_of_eip_4844():
    # From the EIP: the price is 1 without excess, and e times as high after one update fraction.
    assert blob_gas_price(0) == 1
    assert blob_gas_price(5_007_716) == 2
    assert blob_gas_price(5_007_716 * 10) == 22026


@pytest.mark.parametrize(("transactions", "logs"), [(1, 0), (1, 7), (3, 3), (30, 100), (8, 4000)])
def test_exact_budgets_hold_once_the_economy_is_founded(transactions, logs):
    chain = Chain(Spec(seed=3, budget=Budget(30, 100)))
    chain.mine(6)
    planned = plan_block(3, 0, 7, Budget(transactions, logs, exact=True), chain.state)
    assert len(planned.plans) == transactions
    assert sum(len(plan.logs) for plan in planned.plans) == logs


def test_big_logs_are_there_when_asked_for():
    chain = Chain(Spec(seed=3, budget=Budget(10, 30, big_log_bytes=190_000)))
    chain.mine(21)
    sizes = [
        max((len(log.data) for sent in block.transactions for log in sent.logs), default=0)
        for block in chain.blocks()
    ]
    assert [height for height, size in enumerate(sizes) if size == 190_000] == [10, 20]


def test_sizes_are_those_of_whole_blocks(rendered):
    for block, _ in rendered:
        bodies = [oracles.raw_header(block)]
        sent = [oracles.encode_transaction(one) for one in block["transactions"]]
        bodies.append([one if one[0] < 0xC0 else rlp.decode(one) for one in sent])
        bodies.append([])
        bodies.append([rlp.decode(oracles.encode_withdrawal(w)) for w in block["withdrawals"]])
        assert oracles.number(block["size"]) == len(rlp.encode(bodies))


def test_small_budgets_found_the_economy_slowly():
    chain = Chain(Spec(seed=5, budget=Budget(2, 5)))
    chain.mine(60)
    tables = {
        log.table
        for block in chain.blocks()
        for transaction in block.transactions
        for log in transaction.logs
    }
    assert {"erc20_transfers", "uniswap_v2_pairs"} <= tables
