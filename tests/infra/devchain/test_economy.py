"""The economy's logs against the laws that real contracts keep."""

from collections import defaultdict
from math import log as logarithm

import eth_abi
import pytest

from infra.devchain import Budget, Chain, Spec, signatures
from infra.devchain.cast import cast_of, create2_address, created_address
from infra.devchain.model import FAILURES, Log
from infra.devchain.ranges import tick_at
from infra.devchain.swaps import RESERVE0, RESERVE1
from infra.devchain.world import SUPPLY
from schemas.events import builtin_events

ZERO = bytes(20)


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(Spec(seed=7, budget=Budget(30, 110)))
    made.mine(250)
    made.reorg(12)
    return made


@pytest.fixture(scope="module")
def logs(chain: Chain) -> list[Log]:
    return [log for block in chain.blocks() for sent in block.transactions for log in sent.logs]


def _abi_value(text: str, value):
    if text == "address":
        return "0x" + value.hex()
    if text == "bool":
        return bool(value)
    return value.decode() if text == "string" else value


def _encoded(layout, log: Log) -> tuple[tuple[bytes, ...], bytes]:
    """What eth-abi makes of a log's rows in one layout."""
    if layout.name == "TransferBatch":
        values = [*log.rows[0][:3], [row[3] for row in log.rows], [row[4] for row in log.rows]]
    else:
        values = list(log.rows[0])
    texts = [parameter.type.text for parameter in layout.parameters]
    values = [_abi_value(text, value) for text, value in zip(texts, values, strict=True)]
    indexed = [parameter.indexed for parameter in layout.parameters]
    topics = [
        eth_abi.encode([text], [value])
        for text, value, apart in zip(texts, values, indexed, strict=True)
        if apart
    ]
    kept = [not apart for apart in indexed]
    data = eth_abi.encode(
        [text for text, keep in zip(texts, kept, strict=True) if keep],
        [value for value, keep in zip(values, kept, strict=True) if keep],
    )
    return (layout.topic0, *topics), data


def test_logs_are_what_eth_abi_encodes(logs):
    layouts = {event.table.name: event.layouts for event in builtin_events()}
    seen = defaultdict(int)
    for log in logs:
        if not log.table or log.table == FAILURES or not log.rows or seen[log.table] > 300:
            continue
        seen[log.table] += 1
        fitting = [
            layout
            for layout in layouts[log.table]
            if layout.topic0 == log.topics[0] and layout.topic_count == len(log.topics)
        ]
        assert len(fitting) == 1, log
        assert _encoded(fitting[0], log) == (log.topics, log.data), log.table
    missing = set(layouts) - set(seen)
    assert missing <= {"nonstandard_approvals"}


def test_every_declared_topic_is_labelled(logs):
    """A log whose topic0 is declared is a row or a failure: never silently neither."""
    declared = {layout.topic0 for event in builtin_events() for layout in event.layouts}
    for log in logs:
        assert bool(log.table) == bool(log.topics and log.topics[0] in declared)


def test_balances_are_the_sum_of_what_moved(chain, logs):
    balances: dict[bytes, int] = defaultdict(int)
    supplies: dict[bytes, int] = defaultdict(int)
    for log in logs:
        for row in log.rows:
            if log.table == "erc20_transfers":
                source, target, amount = row
                balances[log.address + source] -= amount
                balances[log.address + target] += amount
                assert source == ZERO or balances[log.address + source] >= 0
                supplies[log.address] += amount * ((source == ZERO) - (target == ZERO))
                # V2 locks its first shares by minting them to nobody; they count as supply.
                supplies[log.address] += amount * (source == target == ZERO)
            if log.table in ("weth_deposits", "weth_withdrawals"):
                sign = 1 if log.table == "weth_deposits" else -1
                balances[log.address + row[0]] += sign * row[1]
                supplies[log.address] += sign * row[1]
    head = chain.view.head
    for key, amount in balances.items():
        if key[20:] != ZERO:
            assert chain.value_at(key, head) == amount
    for token, supply in supplies.items():
        assert chain.value_at(token + SUPPLY, head) == supply
    assert len(supplies) > 20


def test_pairs_hold_their_reserves(chain):
    head = chain.view.head
    opened = 0
    for pool in chain.cast.pools_v2:
        address = pool.account.address
        for key, token in ((RESERVE0, pool.token0), (RESERVE1, pool.token1)):
            reserve = chain.value_at(address + key, head)
            assert chain.value_at(token.address + address, head) == reserve
            opened += reserve > 0
    assert opened > 20


def test_v2_swaps_keep_the_product(logs):
    reserves: dict[bytes, tuple[int, int]] = {}
    synced: dict[bytes, tuple[int, int]] = {}
    swaps = 0
    for log in logs:
        if log.table == "uniswap_v2_syncs":
            reserves[log.address] = synced.get(log.address, (0, 0))
            synced[log.address] = log.rows[0]
        if log.table == "uniswap_v2_swaps":
            _, in0, in1, out0, out1, _ = log.rows[0]
            before, after = reserves[log.address], synced[log.address]
            assert after == (before[0] + in0 - out0, before[1] + in1 - out1)
            assert after[0] * after[1] >= before[0] * before[1]
            swaps += 1
    assert swaps > 500


@pytest.mark.parametrize(
    ("sqrt_price", "tick"),
    [
        # From Uniswap v3-core, TickMath.spec.ts: both bounds, and one below the upper one.
        (4295128739, -887272),
        (1461446703485210103287273052203988822378723970342 - 1, 887271),
        (1 << 96, 0),
        ((1 << 96) - 1, -1),
        (79232123823359799118286999568, 1),
    ],
)
def test_ticks_of_tick_math(sqrt_price, tick):
    assert tick_at(sqrt_price) == tick


def test_ticks_follow_prices(logs):
    for log in logs:
        if log.table == "uniswap_v3_swaps":
            *_, sqrt_price, liquidity, tick = log.rows[0]
            price = (sqrt_price / 2**96) ** 2
            assert tick == pytest.approx(logarithm(price, 1.0001), abs=1.001)
            assert liquidity > 0


def test_swaps_of_ranges_have_two_signs(logs):
    for log in logs:
        if log.table in ("uniswap_v3_swaps", "uniswap_v4_swaps"):
            amount0, amount1 = log.rows[0][2:4]
            # A very small one may be paid with nothing, as in real pools.
            assert amount0 * amount1 <= 0
            assert (amount0, amount1) != (0, 0)


def test_contracts_lie_where_their_creation_puts_them(chain, logs):
    sent = [transaction for block in chain.blocks() for transaction in block.transactions]
    created = {transaction.contract_address for transaction in sent} - {None}
    cast = chain.cast
    assert {token.address for token in (cast.weth, *cast.tokens[:12])} <= created
    assert {contract.address for contract in cast.shared_contracts} <= created
    first = {log.address for log in logs}
    pools = {p.account.address for p in (*cast.pools_v2, *cast.pools_v3)}
    assert first - pools <= created


def test_addresses_of_the_yellow_paper_and_eip_1014():
    sender = bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0")
    assert created_address(sender, 0).hex() == "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    # EIP-1014, examples 1 and 2: init code 0x00.
    code = bytes.fromhex("bc36789e7a1e281436464229828f817d6612f7b477d66591ff96a9e064bcc98a")
    assert create2_address(ZERO, bytes(32), code).hex() == (
        "4d1a2e2bb4f88f0250f26ffff098b0b30b26bf38"
    )
    deployer = bytes.fromhex("deadbeef") + bytes(16)
    assert create2_address(deployer, bytes(32), code).hex() == (
        "b928f69bb1d91cd65274e3c79d8986362984fda3"
    )


def test_known_signatures():
    assert signatures.TRANSFER.hex().startswith("ddf252ad1be2c89b")
    assert signatures.V3_SWAP.hex().startswith("c42079f94a6350d7")
    assert signatures.CALL_TRANSFER.hex() == "a9059cbb"


def test_seeds_have_different_casts():
    assert not {actor.address for actor in cast_of(1).actors} & {
        actor.address for actor in cast_of(2).actors
    }
