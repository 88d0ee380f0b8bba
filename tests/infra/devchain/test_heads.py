"""WebSocket connections: answers, pushed heads, reorgs and faults."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import pytest
import websockets

from infra.devchain import Budget, Chain, DevchainServer, Fault, Spec, serve_in_thread
from infra.devchain.control import set_fault

# A connection is not given up because the machine is slow.
connect = partial(websockets.connect, open_timeout=None, ping_interval=None)


@pytest.fixture
def chain() -> Chain:
    made = Chain(Spec(seed=17, budget=Budget(4, 10)))
    made.mine(10)
    return made


@pytest.fixture
async def server(chain):
    serving = DevchainServer(chain, 2)
    await serving.start()
    yield serving
    await serving.stop()


async def _call(socket, method, *params):
    await socket.send(json.dumps({"id": 5, "method": method, "params": list(params)}))
    answered = json.loads(await socket.recv())
    assert answered["id"] == 5
    return answered


async def _head(socket, subscription):
    pushed = json.loads(await socket.recv())
    assert pushed["method"] == "eth_subscription"
    assert pushed["params"]["subscription"] == subscription
    return pushed["params"]["result"]


async def test_calls_over_websocket_are_those_over_http(server, chain):
    async with connect(server.ws_urls[0]) as socket:
        block = (await _call(socket, "eth_getBlockByNumber", "0x3", True))["result"]
        assert block["hash"] == "0x" + chain.blocks()[3].hash.hex()
        assert (await _call(socket, "eth_nothing"))["error"]["code"] == -32601
        await socket.send(json.dumps([{"id": 1, "method": "eth_chainId"}] * 2))
        assert len(json.loads(await socket.recv())) == 2


async def test_heads_follow_mining_and_reorgs(server, chain):
    async with connect(server.ws_urls[0]) as socket:
        subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
        for change in (chain.mine(), chain.mine(3), chain.reorg(2), chain.reorg(3, 2)):
            for block in change.added:
                head = await _head(socket, subscription)
                assert head["hash"] == "0x" + block.hash.hex()
                assert head["parentHash"] == "0x" + block.header.parent_hash.hex()
                assert "transactions" not in head
        assert (await _call(socket, "eth_unsubscribe", subscription))["result"] is True
        assert (await _call(socket, "eth_unsubscribe", subscription))["result"] is False
        chain.mine()
        assert (await _call(socket, "eth_blockNumber"))["result"] == hex(chain.view.head)


async def test_two_subscribers_hear_the_same(server, chain):
    async with (
        connect(server.ws_urls[0]) as one,
        connect(server.ws_urls[1]) as other,
    ):
        names = [(await _call(s, "eth_subscribe", "newHeads"))["result"] for s in (one, other)]
        chain.mine()
        heads = [await _head(s, name) for s, name in zip((one, other), names, strict=True)]
        assert heads[0] == heads[1]


async def test_other_subscriptions_are_refused(server):
    async with connect(server.ws_urls[0]) as socket:
        assert (await _call(socket, "eth_subscribe", "syncing"))["error"]["code"] == -32602


async def test_a_lagging_endpoint_pushes_old_heads(server, chain):
    set_fault(server.endpoints[0], Fault("lagging_head", blocks=2))
    async with connect(server.ws_urls[0]) as socket:
        subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
        chain.mine()
        assert (await _head(socket, subscription))["number"] == "0x9"


async def test_an_endpoint_can_drop_and_swallow_heads(server, chain):
    pushed = frozenset({"eth_subscription"})
    async with connect(server.ws_urls[0]) as socket:
        subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
        set_fault(server.endpoints[0], Fault("hang", pushed, count=1))
        chain.mine(2)
        assert (await _head(socket, subscription))["number"] == "0xc"
        set_fault(server.endpoints[0], Fault("disconnect", pushed, count=1))
        chain.mine()
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()


async def test_a_call_can_break_the_connection(server):
    set_fault(server.endpoints[0], Fault("disconnect", frozenset({"eth_chainId"}), count=1))
    async with connect(server.ws_urls[0]) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await _call(socket, "eth_chainId")


async def test_stopping_closes_connections(chain):
    server = DevchainServer(chain)
    await server.start()
    async with connect(server.ws_urls[0]) as socket:
        await _call(socket, "eth_subscribe", "newHeads")
        await server.stop()
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
    chain.mine()


async def test_blocks_come_by_themselves_at_an_interval(server, chain):
    async with connect(server.ws_urls[0]) as socket:
        subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
        assert (await _call(socket, "devchain_setInterval", 0.01))["result"] is True
        numbers = [int((await _head(socket, subscription))["number"], 16) for _ in range(5)]
        assert numbers == list(range(11, 16))


async def test_a_serving_thread_mines_at_an_interval(chain):
    with serve_in_thread(chain) as serving:
        assert serving.chain is chain
        async with connect(serving.ws_urls[0]) as socket:
            subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
            serving.set_interval(0.01)
            assert (await _head(socket, subscription))["number"] == "0xb"
            assert (await _head(socket, subscription))["number"] == "0xc"
            serving.set_interval(None)


def test_no_block_comes_after_a_serving_thread_was_told_to_mine_no_more(chain, monkeypatch):
    mine, mining, may_go_on = chain.mine, threading.Event(), threading.Event()

    def held():
        mining.set()
        may_go_on.wait()
        return mine()

    with serve_in_thread(chain) as serving, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(chain, "mine", held)
        serving.set_interval(0.01)
        mining.wait()
        stopped = pool.submit(lambda: (serving.set_interval(None), chain.view.head))
        wait([stopped], 0.1)
        may_go_on.set()
        assert stopped.result() == (None, 11)
    assert chain.view.head == 11


def test_whoever_asks_a_serving_thread_to_mine_is_told_why_it_cannot(chain, monkeypatch):
    def refuse(_server, _seconds):
        raise OverflowError("no such interval")

    with serve_in_thread(chain) as serving, monkeypatch.context() as patched:
        patched.setattr(DevchainServer, "set_interval", refuse)
        with pytest.raises(OverflowError, match="no such interval"):
            serving.set_interval(0.01)


async def test_heads_of_a_chain_changed_from_another_thread(chain):
    with serve_in_thread(chain) as serving:
        async with connect(serving.ws_urls[0]) as socket:
            subscription = (await _call(socket, "eth_subscribe", "newHeads"))["result"]
            change = await asyncio.to_thread(chain.mine, 2)
            for block in change.added:
                head = await _head(socket, subscription)
                assert head["hash"] == "0x" + block.hash.hex()
