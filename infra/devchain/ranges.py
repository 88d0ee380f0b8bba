"""A world and a pool of a price range in, the logs of its swaps out: Uniswap V3 and V4.

Prices and ticks follow the pools' own formulas; a pool is one range of constant liquidity.

Source: Uniswap v3-core (SwapMath, TickMath) and v4-core.
"""

from math import isqrt

from infra.devchain import signatures
from infra.devchain.cast import Account, Pool
from infra.devchain.model import Log
from infra.devchain.world import World, signed_word, word

SQRT_PRICE, LIQUIDITY, FAIR_PRICE = b"sqrt price", b"liquidity", b"fair price"
Q96 = 1 << 96
TICK_BOUND = 887_200
_LOG_BASE = 255738958999603826347141
_ERROR_BELOW = 3402992956809132418596140100660247210
_ERROR_ABOVE = 291339464771989622907027621153398088495


_TICK_FACTORS = (
    0xFFFCB933BD6FAD37AA2D162D1A594001,
    0xFFF97272373D413259A46990580E213A,
    0xFFF2E50F5F656932EF12357CF3C7FDCC,
    0xFFE5CACA7E10E4E61C3624EAA0941CD0,
    0xFFCB9843D60F6159C9DB58835C926644,
    0xFF973B41FA98C081472E6896DFB254C0,
    0xFF2EA16466C96A3843EC78B326B52861,
    0xFE5DEE046A99A2A811C461F1969C3053,
    0xFCBE86C7900A88AEDCFFC83B479AA3A4,
    0xF987A7253AC413176F2B074CF7815E54,
    0xF3392B0822B70005940C7A398E4B70F3,
    0xE7159475A2C29B7443B29C7FA6E889D9,
    0xD097F3BDFD2022B8845AD8F792AA5825,
    0xA9F746462D870FDF8A65DC1F90E061E5,
    0x70D869A156D2A1B890BB3DF62BAF32F7,
    0x31BE135F97D08FD981231505542FCFA6,
    0x9AA508B5B7A84E1C677DE54F3E99BC9,
    0x5D6AF8DEDB81196699C329225EE604,
    0x2216E584F5FA1EA926041BEDFE98,
    0x48A170391F7DC42444E8FA2,
)
"""1.0001 to the power of minus half of 2^i, as Q128."""


def sqrt_price_at(tick: int) -> int:
    """Q64.96 square-root price of a tick (TickMath.getSqrtRatioAtTick)."""
    ratio = 1 << 128
    for bit, factor in enumerate(_TICK_FACTORS):
        if abs(tick) >> bit & 1:
            ratio = ratio * factor >> 128
    if tick > 0:
        ratio = ((1 << 256) - 1) // ratio
    return -(-ratio >> 32)


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
    logarithm = log2 * _LOG_BASE
    low, high = (logarithm - _ERROR_BELOW) >> 128, (logarithm + _ERROR_ABOVE) >> 128
    return high if low != high and sqrt_price_at(high) <= sqrt_price else low


def _range_swap(world: World, key: bytes, fee: int, portion: float) -> tuple[int, int, int, int]:
    """Move a constant-liquidity pool's price.

    Returns
    -------
    tuple of int
        (amount0, amount1, sqrt price, liquidity), amounts as the pool's gain.
    """
    sqrt_price, liquidity = world.get(key + SQRT_PRICE), world.get(key + LIQUIDITY)
    if world.sells_first(sqrt_price > world.get(key + FAIR_PRICE)):
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
