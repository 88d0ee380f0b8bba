"""A world and a pool of a price range in, the logs of its swaps out: Uniswap V3 and V4.

Prices and ticks follow the pools' own formulas; a pool is one range of constant liquidity.

Source: Uniswap v3-core (SwapMath, TickMath) and v4-core.
"""

from math import isqrt

from infra.devchain import signatures
from infra.devchain.cast import Account, Pool
from infra.devchain.model import Log
from infra.devchain.world import World, signed_word, word

SQRT_PRICE, LIQUIDITY = b"sqrt price", b"liquidity"
Q96 = 1 << 96
TICK_BOUND = 887_200
_LOG_BASE = 255738958999603826347141
_TICK_OFFSET = 3402992956809132418596140100660247210


def tick_at(sqrt_price: int) -> int:
    """Greatest tick whose price is not above a Q64.96 square-root price (TickMath)."""
    ratio = sqrt_price << 32
    top = ratio.bit_length() - 1
    mantissa = ratio >> (top - 127) if top >= 128 else ratio << (127 - top)
    log2 = (top - 128) << 64
    for shift in range(63, 49, -1):
        mantissa = mantissa * mantissa >> 127
        carry = mantissa >> 128
        log2 |= carry << shift
        mantissa >>= carry
    return (log2 * _LOG_BASE - _TICK_OFFSET) >> 128


def _range_swap(world: World, key: bytes, fee: int, portion: float) -> tuple[int, int, int, int]:
    """Move a constant-liquidity pool's price.

    Returns
    -------
    tuple of int
        (amount0, amount1, sqrt price, liquidity), amounts as the pool's gain.
    """
    sqrt_price, liquidity = world.get(key + SQRT_PRICE), world.get(key + LIQUIDITY)
    if world.bits(1):
        amount_in = max(2, int((liquidity * Q96 // sqrt_price) * portion))
        net = amount_in * (1_000_000 - fee) // 1_000_000
        scaled = liquidity * Q96
        after: int = -(-scaled * sqrt_price // (scaled + net * sqrt_price))
        amount0, amount1 = amount_in, -(liquidity * (sqrt_price - after) // Q96)
    else:
        amount_in = max(2, int((liquidity * sqrt_price // Q96) * portion))
        net = amount_in * (1_000_000 - fee) // 1_000_000
        after = sqrt_price + net * Q96 // liquidity
        amount0 = -(liquidity * Q96 * (after - sqrt_price) // after // sqrt_price)
        amount1 = amount_in
    world.put(key + SQRT_PRICE, after)
    return amount0, amount1, after, liquidity


def swap_v3(world: World, pool: Pool, trader: Account, portion: float) -> list[Log]:
    """Swap in a V3 pool: what the pool pays moves first, then what it gets."""
    address = pool.account.address
    amount0, amount1, sqrt_price, liquidity = _range_swap(world, address, pool.fee, portion)
    sold, bought = (pool.token0, pool.token1) if amount0 > 0 else (pool.token1, pool.token0)
    paid, got = (amount0, -amount1) if amount0 > 0 else (amount1, -amount0)
    logs = world.fund(bought, pool.account, got) + world.fund(sold, trader, paid)
    logs.append(world.transfer(bought, pool.account, trader, got))
    logs.append(world.transfer(sold, trader, pool.account, paid))
    tick = tick_at(sqrt_price)
    router = world.cast.router
    words = (signed_word(amount0), signed_word(amount1), word(sqrt_price))
    logs.append(
        Log(
            address,
            (signatures.V3_SWAP, router.word, trader.word),
            b"".join(words) + word(liquidity) + signed_word(tick),
            "uniswap_v3_swaps",
            ((router.address, trader.address, amount0, amount1, sqrt_price, liquidity, tick),),
        )
    )
    return logs


def swap_v4(world: World, pool: Pool, trader: Account, portion: float) -> list[Log]:
    """Swap in a V4 pool: amounts are the trader's, so what is sold is negative."""
    manager = world.cast.manager_v4
    key = pool.pool_id
    gain0, gain1, sqrt_price, liquidity = _range_swap(world, key, pool.fee, portion)
    tick = tick_at(sqrt_price)
    router = world.cast.router
    amount0, amount1 = -gain0, -gain1
    words = (signed_word(amount0), signed_word(amount1), word(sqrt_price), word(liquidity))
    row = (key, router.address, amount0, amount1, sqrt_price, liquidity, tick, pool.fee)
    logs = [
        Log(
            manager.address,
            (signatures.V4_SWAP, key, router.word),
            b"".join(words) + signed_word(tick) + word(pool.fee),
            "uniswap_v4_swaps",
            (row,),
        )
    ]
    for token, gain in ((pool.token0, gain0), (pool.token1, gain1)):
        if token is world.cast.ether:
            continue
        source, target = (trader, manager) if gain > 0 else (manager, trader)
        logs += world.fund(token, source, abs(gain))
        logs.append(world.transfer(token, source, target, abs(gain)))
    return logs


def full_range(pool: Pool) -> int:
    """The outermost usable tick of a pool."""
    return TICK_BOUND // pool.spacing * pool.spacing


def collect_v3(world: World, pool: Pool, owner: Account) -> list[Log]:
    """Collect a position's fees: a burn of no liquidity, then what is due."""
    address, bound = pool.account.address, full_range(pool)
    ticks = (signed_word(-bound), signed_word(bound))
    fees = [
        world.get(token.account.address + address) >> 16 for token in (pool.token0, pool.token1)
    ]
    due = word(fees[0]) + word(fees[1])
    logs = [
        Log(
            address,
            (signatures.V3_BURN, owner.word, *ticks),
            bytes(96),
            "uniswap_v3_burns",
            ((owner.address, -bound, bound, 0, 0, 0),),
        ),
        world.transfer(pool.token0, pool.account, owner, fees[0]),
        world.transfer(pool.token1, pool.account, owner, fees[1]),
    ]
    row = (owner.address, owner.address, -bound, bound, fees[0], fees[1])
    logs.append(
        Log(
            address,
            (signatures.V3_COLLECT, owner.word, *ticks),
            owner.word + due,
            "uniswap_v3_collects",
            (row,),
        )
    )
    return logs


def starting_price(pool: Pool) -> int:
    """Q64.96 square root of a pool's price when the chain started."""
    units0 = 10**pool.token0.decimals * pool.token1.price_microdollars
    units1 = 10**pool.token1.decimals * pool.token0.price_microdollars
    return isqrt((units1 << 192) // units0)
