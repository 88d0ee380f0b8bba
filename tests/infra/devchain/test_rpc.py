"""The endpoints' answers, asked over HTTP, and by web3.py."""

import json
import random
from itertools import product

import pytest
from web3 import HTTPProvider, Web3

from infra.devchain import Budget, Chain, Limits, Spec, serve_in_thread
from infra.devchain.rpc import METHODS
from infra.devchain.signatures import TRANSFER, V2_SWAP
from tests.infra.devchain.client import answer, call, post, refusal

HEAD = 80


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(
        Spec(seed=9, chain_id=4242, budget=Budget(15, 50), finality_depth=20, safe_depth=9)
    )
    made.mine(HEAD + 2)
    made.reorg(3, 1)
    return made


@pytest.fixture(scope="module")
def url(chain):
    with serve_in_thread(chain, limits=Limits(batch_calls_max=50)) as serving:
        yield serving.http_urls[0]


def test_who_it_is(url):
    assert call(url, "eth_chainId") == hex(4242)
    assert call(url, "net_version") == "4242"
    assert "synthetic" in call(url, "web3_clientVersion")
    assert call(url, "eth_syncing") is False
    assert call(url, "eth_blockNumber") == hex(HEAD)


@pytest.mark.parametrize(
    ("tag", "number"),
    [
        ("latest", HEAD),
        ("pending", HEAD),
        ("safe", HEAD - 9),
        ("finalized", HEAD - 20),
        ("earliest", 0),
        ("0x11", 17),
    ],
)
def test_tags(url, chain, tag, number):
    expected = "0x" + chain.blocks()[number].hash.hex()
    assert call(url, "eth_getBlockByNumber", tag, False)["hash"] == expected
    assert call(url, "eth_getHeaderByNumber", tag)["hash"] == expected
    receipts = call(url, "eth_getBlockReceipts", tag)
    assert {receipt["blockHash"] for receipt in receipts} <= {expected}


def test_one_block_by_every_way(url, chain):
    block = chain.blocks()[40]
    block_hash = "0x" + block.hash.hex()
    full = call(url, "eth_getBlockByNumber", "0x28", True)
    assert call(url, "eth_getBlockByHash", block_hash, True) == full
    brief = call(url, "eth_getBlockByHash", block_hash, False)
    assert brief["transactions"] == [sent["hash"] for sent in full["transactions"]]
    assert brief | {"transactions": full["transactions"]} == full
    header = call(url, "eth_getHeaderByHash", block_hash)
    assert header.items() <= full.items()
    assert set(full) - set(header) == {"transactions", "withdrawals", "uncles", "size"}
    receipts = call(url, "eth_getBlockReceipts", "0x28")
    assert call(url, "eth_getBlockReceipts", block_hash) == receipts
    assert call(url, "eth_getBlockReceipts", {"blockHash": block_hash}) == receipts
    assert call(url, "eth_getBlockReceipts", {"blockNumber": "0x28"}) == receipts
    for sent, receipt in zip(full["transactions"], receipts, strict=True):
        assert call(url, "eth_getTransactionByHash", sent["hash"]) == sent
        assert call(url, "eth_getTransactionReceipt", sent["hash"]) == receipt


def test_what_is_not_there_is_null(url):
    nothing = "0x" + "ab" * 32
    assert call(url, "eth_getBlockByNumber", hex(HEAD + 1), True) is None
    assert call(url, "eth_getBlockByHash", nothing, True) is None
    assert call(url, "eth_getBlockReceipts", hex(HEAD + 1)) is None
    assert call(url, "eth_getBlockReceipts", nothing) is None
    assert call(url, "eth_getTransactionByHash", nothing) is None
    assert call(url, "eth_getTransactionReceipt", nothing) is None


def test_orphaned_blocks_are_known_by_hash_and_not_by_number(url, chain):
    head = chain.blocks()[-1].hash
    chain.mine(1)
    change = chain.reorg(1, 0)
    try:
        orphan = "0x" + change.removed[0].hash.hex()
        # Above the head: a node that has just rolled back does not know it any more.
        assert call(url, "eth_getBlockByHash", orphan, False) is None
        chain.mine(1)
        assert call(url, "eth_getBlockByHash", orphan, False)["hash"] == orphan
        assert call(url, "eth_getBlockReceipts", orphan) is not None
        assert call(url, "eth_getBlockByNumber", hex(HEAD + 1), False)["hash"] != orphan
    finally:
        chain.switch(head)


def _wanted(log, query):
    addresses = query.get("address")
    if addresses and log["address"] not in (
        addresses if isinstance(addresses, list) else [addresses]
    ):
        return False
    for position, topics in enumerate(query.get("topics", [])):
        if position >= len(log["topics"]):
            return False
        if topics and log["topics"][position] not in (
            topics if isinstance(topics, list) else [topics]
        ):
            return False
    return True


def test_logs_are_those_that_brute_force_finds(url, chain):
    everything = [
        log
        for number in range(HEAD + 1)
        for receipt in call(url, "eth_getBlockReceipts", hex(number))
        for log in receipt["logs"]
    ]
    assert len(everything) > 1000
    dice = random.Random(5)
    transfer, swap = "0x" + TRANSFER.hex(), "0x" + V2_SWAP.hex()
    token = "0x" + chain.cast.tokens[0].address.hex()
    weth = "0x" + chain.cast.weth.address.hex()
    holder = "0x" + chain.cast.exchange.word.hex()
    found = 0
    addresses = [None, token, [token, weth], ["0x" + "00" * 20], []]
    topics = [
        None,
        [],
        [transfer],
        [[transfer, swap]],
        [None, holder],
        [transfer, None, [holder, "0x" + chain.cast.router.word.hex()]],
        [None, None, None],
        [None, None, None, None],
        [[]],
    ]
    for address, wanted in product(addresses, topics):
        first, last = sorted(dice.randrange(HEAD + 1) for _ in range(2))
        query = {"fromBlock": hex(first), "toBlock": hex(last)}
        if address is not None:
            query["address"] = address
        if wanted is not None:
            query["topics"] = wanted
        expected = [
            log
            for log in everything
            if first <= int(log["blockNumber"], 16) <= last and _wanted(log, query)
        ]
        assert call(url, "eth_getLogs", query) == expected, query
        found += len(expected)
        by_hash = {k: v for k, v in query.items() if k not in ("fromBlock", "toBlock")}
        by_hash["blockHash"] = "0x" + chain.blocks()[first].hash.hex()
        of_block = [log for log in expected if int(log["blockNumber"], 16) == first]
        assert call(url, "eth_getLogs", by_hash) == of_block
    assert found > 1000


@pytest.mark.parametrize(
    ("query", "code", "part"),
    [
        ({"fromBlock": "0x5", "toBlock": "0x4"}, -32602, "invalid block range params"),
        ({"fromBlock": "0x5", "toBlock": hex(HEAD + 1)}, -32602, "beyond current head"),
        ({"blockHash": "0x" + "ab" * 32}, -32000, "unknown block"),
        ({"blockHash": "0x" + "ab" * 32, "fromBlock": "0x1"}, -32602, "cannot specify both"),
        ({"topics": [None] * 5}, -32602, "exceed max topics"),
        ({"address": "0x12"}, -32602, "invalid length"),
        ({"fromBlock": "17"}, -32602, "hex quantity"),
    ],
)
def test_log_queries_that_make_no_sense(url, query, code, part):
    got, message = refusal(url, "eth_getLogs", query)
    assert got == code
    assert part in message


def test_limits_of_log_queries(chain):
    limits = Limits(logs_range_blocks_max=10, logs_results_max=100)
    with serve_in_thread(chain, limits=limits) as serving:
        asked = serving.http_urls[0]
        assert refusal(asked, "eth_getLogs", {"fromBlock": "0x1", "toBlock": "0xb"}) == (
            -32602,
            "exceed maximum block range: 10",
        )
        assert refusal(asked, "eth_getLogs", {"fromBlock": "0x20", "toBlock": "0x29"}) == (
            -32005,
            "query returned more than 100 results",
        )
        assert len(call(asked, "eth_getLogs", {"fromBlock": "0x20", "toBlock": "0x20"})) < 100


def test_batches_keep_order_and_ids(url):
    calls = [
        {"jsonrpc": "2.0", "id": 7, "method": "eth_getBlockByNumber", "params": ["0x3", False]},
        {"jsonrpc": "2.0", "id": "text", "method": "eth_blockNumber"},
        {"jsonrpc": "2.0", "id": None, "method": "eth_nothing", "params": []},
        {"jsonrpc": "2.0", "id": 9, "method": "eth_getBlockReceipts", "params": ["0x4"]},
    ]
    answered = json.loads(post(url, json.dumps(calls).encode()))
    assert [one["id"] for one in answered] == [7, "text", None, 9]
    assert answered[0]["result"]["number"] == "0x3"
    assert answered[2]["error"]["code"] == -32601
    assert answered[3]["result"] == call(url, "eth_getBlockReceipts", "0x4")
    assert json.loads(post(url, json.dumps(calls * 13).encode()))["error"]["message"] == (
        "batch too large"
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"hello", b'{"id":1}', b'{"method":1}', b"[1]"])
def test_what_is_not_json_rpc(url, body):
    assert json.loads(post(url, body))["error"]["code"] == -32700


@pytest.mark.parametrize("method", [m for m in METHODS if m.startswith("eth_get")])
@pytest.mark.parametrize("params", [[], [None], [{}], ["0xzz"], [5], [["0x1"]]])
def test_malformed_parameters_are_refused_not_fatal(url, method, params):
    answered = answer(url, method, *params)
    if method == "eth_getLogs" and params == [{}]:
        assert answered["result"]
    else:
        assert answered["error"]["code"] == -32602


@pytest.fixture(scope="module")
def web3(url):
    return Web3(HTTPProvider(url))


def test_web3_reads_blocks_and_logs(web3, chain):
    assert web3.is_connected()
    block = web3.eth.get_block(33, full_transactions=True)
    assert block.hash == chain.blocks()[33].hash
    assert len(block.transactions) == len(chain.blocks()[33].transactions)
    sent = block.transactions[0]
    assert web3.eth.get_transaction_receipt(sent.hash).transactionHash == sent.hash
    logs = web3.eth.get_logs({"fromBlock": 30, "toBlock": 40})
    assert len(logs) == sum(block.log_count for block in chain.blocks()[30:41])


def test_web3_decodes_transfers_as_they_were_meant(web3, chain):
    inputs = [("from", "address", True), ("to", "address", True), ("value", "uint256", False)]
    abi = {
        "type": "event",
        "name": "Transfer",
        "anonymous": False,
        "inputs": [{"name": n, "type": t, "indexed": i} for n, t, i in inputs],
    }
    event = web3.eth.contract(abi=[abi]).events.Transfer()
    meant = {}
    for block in chain.blocks()[20:60]:
        logs = [log for sent in block.transactions for log in sent.logs]
        for index, log in enumerate(logs):
            if log.table == "erc20_transfers":
                meant[block.header.number, index] = log.rows[0]
    decoded = 0
    for log in web3.eth.get_logs({"fromBlock": 20, "toBlock": 59}):
        row = meant.get((log.blockNumber, log.logIndex))
        if row is not None:
            args = event.process_log(log).args
            assert (args["from"], args["to"], args["value"]) == (
                web3.to_checksum_address(row[0]),
                web3.to_checksum_address(row[1]),
                row[2],
            )
            decoded += 1
    assert decoded == len(meant) > 500


def _view(name, returned, *taken):
    return {
        "type": "function",
        "name": name,
        "stateMutability": "view",
        "inputs": [{"name": "", "type": text} for text in taken],
        "outputs": [{"name": "", "type": returned}],
    }


def test_web3_reads_tokens(web3, chain):
    abi = [
        _view("name", "string"),
        _view("symbol", "string"),
        _view("decimals", "uint8"),
        _view("totalSupply", "uint256"),
        _view("balanceOf", "uint256", "address"),
    ]
    token = chain.cast.tokens[3]
    functions = web3.eth.contract(web3.to_checksum_address(token.address), abi=abi).functions
    assert functions.name().call() == token.name
    assert functions.symbol().call() == token.symbol
    assert functions.decimals().call() == token.decimals
    holder = web3.to_checksum_address(chain.cast.exchange.address)
    now, before = (functions.balanceOf(holder).call(block_identifier=n) for n in (HEAD, 30))
    assert now == chain.value_at(token.address + chain.cast.exchange.address, HEAD)
    assert before == chain.value_at(token.address + chain.cast.exchange.address, 30) != now
    assert functions.totalSupply().call() >= token.supply


def test_calls_to_odd_contracts(url, chain):
    token = {"to": "0x" + chain.cast.tokens[9].address.hex()}
    symbol = call(url, "eth_call", token | {"data": "0x95d89b41"}, "latest")
    assert bytes.fromhex(symbol[2:]) == chain.cast.tokens[9].symbol.encode().ljust(32, b"\0")
    assert refusal(url, "eth_call", token | {"data": "0x12345678"}, "latest")[0] == 3
    nobody = {"to": "0x" + "12" * 20, "data": "0x95d89b41"}
    assert call(url, "eth_call", nobody, "latest") == "0x"
    pair = chain.cast.pools_v2[0]
    asked = {"to": "0x" + pair.account.address.hex(), "input": "0x0dfe1681"}
    assert call(url, "eth_call", asked) == "0x" + pair.token0.account.word.hex()
