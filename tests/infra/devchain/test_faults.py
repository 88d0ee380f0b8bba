"""Every kind of fault, as a client meets it, and its end."""

import json
import socket
import time
import urllib.error
from http.client import HTTPException
from pathlib import Path

import pytest

from infra.devchain import KINDS, Budget, Chain, Fault, Spec, serve_in_thread
from infra.devchain.faults import FaultBoard
from tests.infra.devchain import oracles
from tests.infra.devchain.client import call, post, refusal

HEAD = 40
BLOCK = hex(HEAD - 10)


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(Spec(seed=13, budget=Budget(20, 60, exact=True), finality_depth=12))
    made.mine(HEAD)
    return made


@pytest.fixture(scope="module")
def shared(chain):
    with serve_in_thread(chain, 2) as serving:
        yield serving


@pytest.fixture
def serving(shared):
    yield shared
    shared.clear_faults()


def _ask(url, method="eth_blockNumber"):
    return post(url, json.dumps({"id": 1, "method": method, "params": []}).encode())


def _verified(url, number):
    """Whether a block and its receipts prove themselves."""
    block = call(url, "eth_getBlockByNumber", number, True)
    receipts = call(url, "eth_getBlockReceipts", number)
    sent = [oracles.encode_transaction(t) for t in block["transactions"]]
    encoded = [oracles.encode_receipt(receipt) for receipt in receipts]
    return {
        "hash": oracles.header_hash(block) == oracles.raw(block["hash"]),
        "transactions": oracles.trie_root(sent) == oracles.raw(block["transactionsRoot"]),
        "receipts": oracles.trie_root(encoded) == oracles.raw(block["receiptsRoot"]),
    }


HONEST = {"hash": True, "transactions": True, "receipts": True}


def test_http_status_with_retry_after(serving):
    number = serving.set_fault(Fault("http_status", count=2, retry_after_seconds=1.5))
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refused:
            _ask(serving.http_urls[0])
        assert refused.value.code == 429
        assert refused.value.headers["Retry-After"] == "1.5"
        refused.value.close()
    assert json.loads(_ask(serving.http_urls[0]))["result"] == hex(HEAD)
    assert serving.struck(number) == 2
    serving.set_fault(Fault("http_status", status=503, count=1))
    with pytest.raises(urllib.error.HTTPError) as refused:
        _ask(serving.http_urls[0])
    assert refused.value.code == 503
    assert refused.value.headers["Retry-After"] is None
    refused.value.close()


@pytest.mark.parametrize("kind", ["disconnect", "truncated"])
def test_broken_connections(serving, kind):
    serving.set_fault(Fault(kind, count=1))
    with pytest.raises((HTTPException, ConnectionError)):
        _ask(serving.http_urls[0])
    assert json.loads(_ask(serving.http_urls[0]))["result"] == hex(HEAD)


def _asked(url, body=b'{"id":1,"method":"eth_chainId"}'):
    """A connection on which a question was sent, and its answer not yet read."""
    host, port = url.removeprefix("http://").split(":")
    raw = socket.create_connection((host, int(port)))
    raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return raw


def test_hang_until_the_client_gives_up(serving):
    number = serving.set_fault(Fault("hang", count=1))
    with _asked(serving.http_urls[0]) as raw:
        while serving.struck(number) == 0:
            time.sleep(0.01)
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
    assert _ask(serving.http_urls[0])
    assert serving.struck(number) == 1


def test_short_hang_ends_in_a_dropped_connection(serving):
    serving.set_fault(Fault("hang", count=1, delay_seconds=0.05))
    with pytest.raises((HTTPException, ConnectionError)):
        _ask(serving.http_urls[0])


def test_delay(serving):
    serving.set_fault(Fault("delay", count=1, delay_seconds=0.3))
    begun = time.monotonic()
    assert json.loads(_ask(serving.http_urls[0]))["result"] == hex(HEAD)
    assert time.monotonic() - begun >= 0.3


def test_bodies_that_are_no_json(serving):
    serving.set_fault(Fault("html", count=1))
    assert _ask(serving.http_urls[0]).startswith(b"<!DOCTYPE html>")
    serving.set_fault(Fault("empty_body", count=1))
    assert _ask(serving.http_urls[0]) == b""


def test_giant_body_is_valid_json_of_its_size(serving):
    serving.set_fault(Fault("giant", count=1, size_bytes=3_000_000))
    body = _ask(serving.http_urls[0])
    assert len(json.loads(body)["result"]) == 3_000_002


def test_giant_body_stops_when_the_client_hangs_up(serving):
    serving.set_fault(Fault("giant", count=1))
    with _asked(serving.http_urls[0]) as raw:
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    assert json.loads(_ask(serving.http_urls[0]))["result"] == hex(HEAD)


def test_rpc_error_of_one_method_only(serving):
    methods = frozenset({"eth_getBlockReceipts"})
    serving.set_fault(Fault("rpc_error", methods, code=-32601, message="no such method"))
    assert refusal(serving.http_urls[0], "eth_getBlockReceipts", BLOCK) == (
        -32601,
        "no such method",
    )
    assert call(serving.http_urls[0], "eth_blockNumber") == hex(HEAD)
    assert call(serving.http_urls[1], "eth_getBlockReceipts", BLOCK)


def test_no_finality_tags(serving):
    serving.set_fault(Fault("no_finality_tags"))
    for tag in ("safe", "finalized"):
        assert refusal(serving.http_urls[0], "eth_getBlockByNumber", tag, False)[0] == -39001
    assert call(serving.http_urls[0], "eth_getBlockByNumber", "latest", False)


def test_pruned_history(serving, chain):
    serving.set_fault(Fault("pruned", blocks=5))
    url = serving.http_urls[0]
    old, kept = chain.blocks()[HEAD - 5], chain.blocks()[HEAD - 4]
    gone = (4444, "pruned history unavailable")
    assert refusal(url, "eth_getBlockByNumber", hex(HEAD - 5), False) == gone
    assert refusal(url, "eth_getBlockByHash", "0x" + old.hash.hex(), False) == gone
    assert refusal(url, "eth_getBlockReceipts", hex(HEAD - 5)) == gone
    assert refusal(url, "eth_getLogs", {"fromBlock": hex(HEAD - 5), "toBlock": "latest"}) == gone
    sent = "0x" + old.transactions[0].hash.hex()
    assert refusal(url, "eth_getTransactionReceipt", sent) == gone
    assert call(url, "eth_getBlockByNumber", hex(HEAD - 4), False)
    assert call(url, "eth_getBlockReceipts", "0x" + kept.hash.hex())
    assert call(url, "eth_getLogs", {"fromBlock": hex(HEAD - 4), "toBlock": "latest"})
    assert call(url, "eth_chainId")


def test_null_block_and_null_receipts(serving):
    number = serving.set_fault(Fault("null_receipts", count=1))
    assert call(serving.http_urls[0], "eth_getBlockByNumber", BLOCK, True)
    assert serving.struck(number) == 0
    assert call(serving.http_urls[0], "eth_getBlockReceipts", BLOCK) is None
    assert call(serving.http_urls[0], "eth_getBlockReceipts", BLOCK)
    serving.set_fault(Fault("null_block", count=1))
    assert call(serving.http_urls[0], "eth_getBlockReceipts", BLOCK)
    assert call(serving.http_urls[0], "eth_getBlockByNumber", BLOCK, True) is None
    assert call(serving.http_urls[0], "eth_getBlockByNumber", BLOCK, True)


def test_empty_logs(serving):
    query = {"fromBlock": BLOCK, "toBlock": BLOCK}
    serving.set_fault(Fault("empty_logs", count=1))
    assert call(serving.http_urls[0], "eth_getLogs", query) == []
    assert len(call(serving.http_urls[0], "eth_getLogs", query)) == 60


def test_receipts_of_another_block(serving, chain):
    serving.set_fault(Fault("other_receipts", count=1, blocks=1))
    receipts = call(serving.http_urls[0], "eth_getBlockReceipts", BLOCK)
    assert receipts[0]["blockHash"] == "0x" + chain.blocks()[int(BLOCK, 16) - 1].hash.hex()


def test_lagging_head(serving):
    number = serving.set_fault(Fault("lagging_head", blocks=7))
    url = serving.http_urls[0]
    assert call(url, "eth_blockNumber") == hex(HEAD - 7)
    assert call(url, "eth_getBlockByNumber", hex(HEAD), False) is None
    assert call(url, "eth_getBlockByNumber", "finalized", False)["number"] == hex(HEAD - 19)
    assert call(serving.http_urls[1], "eth_blockNumber") == hex(HEAD)
    serving.endpoints[0].faults.clear(number)
    assert call(url, "eth_blockNumber") == hex(HEAD)


def test_back_stays_where_it_went(serving, chain):
    head = chain.blocks()[-1].hash
    serving.set_fault(Fault("back", blocks=7))
    url = serving.http_urls[0]
    chain.mine(2)
    try:
        assert call(url, "eth_blockNumber") == hex(HEAD - 7)
        assert call(url, "eth_getBlockByNumber", hex(HEAD), False) is None
        assert call(serving.http_urls[1], "eth_blockNumber") == hex(HEAD + 2)
        serving.clear_faults(0)
        assert call(url, "eth_blockNumber") == hex(HEAD + 2)
    finally:
        chain.switch(head)


def test_reset_is_another_chain_with_the_same_chain_id(serving, chain):
    serving.set_fault(Fault("reset", blocks=3))
    url, other = serving.http_urls[:2]
    assert call(url, "eth_chainId") == call(other, "eth_chainId")
    assert call(url, "eth_blockNumber") == "0x3"
    hashes = {
        call(each, "eth_getBlockByNumber", "0x0", False)["hash"] for each in serving.http_urls
    }
    assert len(hashes) == 2
    assert call(url, "eth_getBlockReceipts", "0x3")[0]["blockHash"] not in {
        f"0x{block.hash.hex()}" for block in chain.blocks()
    }
    serving.clear_faults(0)
    assert call(url, "eth_blockNumber") == hex(HEAD)


def test_frozen_stays_on_the_old_branch(serving, chain):
    head = chain.blocks()[-1].hash
    serving.set_fault(Fault("frozen"))
    change = chain.reorg(2)
    try:
        stuck, free = (
            call(url, "eth_getBlockByNumber", hex(HEAD), False)["hash"] for url in serving.http_urls
        )
        assert stuck == "0x" + change.removed[-1].hash.hex()
        assert free == "0x" + change.added[1].hash.hex()
        assert call(serving.http_urls[0], "eth_blockNumber") == hex(HEAD)
        serving.clear_faults(0)
        assert call(serving.http_urls[0], "eth_blockNumber") == hex(HEAD + 1)
    finally:
        chain.switch(head)


def test_other_chain(serving):
    serving.set_fault(Fault("other_chain", chain_id=5))
    assert call(serving.http_urls[0], "eth_chainId") == "0x5"
    assert call(serving.http_urls[0], "net_version") == "5"
    assert call(serving.http_urls[1], "eth_chainId") == hex(1337)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("omit_logs", "receipts"),
        ("alter_logs", "receipts"),
        ("duplicate_logs", "receipts"),
        ("alter_receipt", "receipts"),
        ("alter_header", "hash"),
        ("alter_hash", "hash"),
        ("alter_transaction", "transactions"),
    ],
)
def test_lies_fail_exactly_the_proof_they_should(serving, kind, broken):
    assert _verified(serving.http_urls[0], BLOCK) == HONEST
    number = serving.set_fault(Fault(kind, count=1))
    assert _verified(serving.http_urls[0], BLOCK) == HONEST | {broken: False}
    assert serving.struck(number) == 1
    assert _verified(serving.http_urls[0], BLOCK) == HONEST
    assert _verified(serving.http_urls[1], BLOCK) == HONEST


@pytest.mark.parametrize(
    ("kind", "difference"), [("omit_logs", -1), ("alter_logs", 0), ("duplicate_logs", 1)]
)
def test_lies_about_logs_strike_get_logs_too(serving, kind, difference):
    query = {"fromBlock": BLOCK, "toBlock": BLOCK}
    honest = call(serving.http_urls[1], "eth_getLogs", query)
    serving.set_fault(Fault(kind, frozenset({"eth_getLogs"})))
    lied = call(serving.http_urls[0], "eth_getLogs", query)
    assert len(lied) == len(honest) + difference
    assert lied != honest


def test_cut_logs_leaves_the_first_of_each_list(serving):
    query = {"fromBlock": BLOCK, "toBlock": BLOCK}
    honest = call(serving.http_urls[1], "eth_getLogs", query)
    serving.set_fault(Fault("cut_logs", logs_max=2))
    assert call(serving.http_urls[0], "eth_getLogs", query) == honest[:2]
    assert len(honest) > 2


def test_a_lie_waits_for_something_to_lie_about(serving):
    """A count is not spent on genesis, which has no logs."""
    number = serving.set_fault(Fault("omit_logs", count=1))
    assert call(serving.http_urls[0], "eth_getBlockReceipts", "0x0") == []
    assert call(serving.http_urls[0], "eth_getBlockByNumber", BLOCK, True)
    assert serving.struck(number) == 0
    assert not _verified(serving.http_urls[0], BLOCK)["receipts"]
    assert serving.struck(number) == 1


def test_chance_is_seeded():
    def strikes(seed):
        board = FaultBoard(seed)
        board.add(Fault("null_block", probability=0.3))
        kinds = frozenset({"null_block"})
        return [board.draw(kinds, ("eth_getBlockByNumber",)) is not None for _ in range(400)]

    assert strikes(4) == strikes(4) != strikes(5)
    assert 80 < sum(strikes(4)) < 160


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="no fault 'typo'; there are alter_hash"):
        Fault("typo")


def test_every_kind_is_tested_here():
    """A registry is tested by enumeration: a new kind needs a test in this file."""
    source = Path(__file__).read_text("utf-8")
    for kind in KINDS:
        assert f'"{kind}"' in source, kind
