"""A world and a pool in, the logs of swaps and of liquidity out: Uniswap V2, V3 and V4.

Reserves, prices and ticks follow the pools' own formulas, so each Sync is the consequence of the
swaps before it. A V3 or V4 pool is one range of constant liquidity.

Source: Uniswap v2-core, v3-core (SwapMath, TickMath) and v4-core.
"""

from math import isqrt

from infra.devchain import signatures
from infra.devchain.cast import Account, Pool, Token
from infra.devchain.model import Log
from infra.devchain.world import SUPPLY, ZERO, World, signed_word, word

RESERVE0, RESERVE1 = b"reserve0", b"reserve1"
SQRT_PRICE, LIQUIDITY = b"sqrt price", b"liquidity"
MINIMUM_LIQUIDITY = 1000
Q96 = 1 << 96
TICK_BOUND = 887_200
_LP_DECIMALS = 18
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


def lp_token(pool: Pool) -> Token:
    """The pair's own token."""
    return Token(pool.account, pool.account, "Uniswap V2", "UNI-V2", _LP_DECIMALS, 0, 0)


def _sync(pool: Pool, reserve0: int, reserve1: int) -> Log:
    return Log(
        pool.account.address,
        (signatures.V2_SYNC,),
        word(reserve0) + word(reserve1),
        "uniswap_v2_syncs",
        ((reserve0, reserve1),),
    )


def swap_v2(
    world: World, pool: Pool, trader: Account, target: Account, portion: float
) -> list[Log]:
    """Sell a portion of one reserve to a pair, through the router."""
    address = pool.account.address
    reserve0, reserve1 = world.get(address + RESERVE0), world.get(address + RESERVE1)
    zero_for_one = bool(world.bits(1))
    reserve_in, reserve_out = (reserve0, reserve1) if zero_for_one else (reserve1, reserve0)
    sold, bought = (pool.token0, pool.token1) if zero_for_one else (pool.token1, pool.token0)
    amount_in = max(1, int(reserve_in * portion))
    with_fee = amount_in * 997
    amount_out = with_fee * reserve_out // (reserve_in * 1000 + with_fee)
    logs = world.fund(sold, trader, amount_in)
    logs.append(world.transfer(sold, trader, pool.account, amount_in))
    logs.append(world.transfer(bought, pool.account, target, amount_out))
    if zero_for_one:
        reserve0, reserve1 = reserve0 + amount_in, reserve1 - amount_out
        amounts = (amount_in, 0, 0, amount_out)
    else:
        reserve0, reserve1 = reserve0 - amount_out, reserve1 + amount_in
        amounts = (0, amount_in, amount_out, 0)
    world.put(address + RESERVE0, reserve0)
    world.put(address + RESERVE1, reserve1)
    logs.append(_sync(pool, reserve0, reserve1))
    router = world.cast.router
    logs.append(
        Log(
            address,
            (signatures.V2_SWAP, router.word, target.word),
            b"".join([amount.to_bytes(32, "big") for amount in amounts]),
            "uniswap_v2_swaps",
            ((router.address, *amounts, target.address),),
        )
    )
    return logs


def mint_v2(world: World, pool: Pool, owner: Account, amount0: int, amount1: int) -> list[Log]:
    """Add liquidity to a pair; the first addition locks the minimum for ever."""
    address = pool.account.address
    reserve0, reserve1 = world.get(address + RESERVE0), world.get(address + RESERVE1)
    supply = world.get(address + SUPPLY)
    logs = world.fund(pool.token0, owner, amount0) + world.fund(pool.token1, owner, amount1)
    logs.append(world.transfer(pool.token0, owner, pool.account, amount0))
    logs.append(world.transfer(pool.token1, owner, pool.account, amount1))
    lp = lp_token(pool)
    if supply == 0:
        shares = isqrt(amount0 * amount1) - MINIMUM_LIQUIDITY
        # The locked shares go to the zero address, and count as supply for ever.
        world.add(address + SUPPLY, MINIMUM_LIQUIDITY)
        locked = (ZERO.address, ZERO.address, MINIMUM_LIQUIDITY)
        topics = (signatures.TRANSFER, ZERO.word, ZERO.word)
        logs.append(Log(address, topics, word(MINIMUM_LIQUIDITY), "erc20_transfers", (locked,)))
    else:
        shares = min(amount0 * supply // reserve0, amount1 * supply // reserve1)
    logs.append(world.transfer(lp, ZERO, owner, shares))
    reserve0, reserve1 = reserve0 + amount0, reserve1 + amount1
    world.put(address + RESERVE0, reserve0)
    world.put(address + RESERVE1, reserve1)
    logs.append(_sync(pool, reserve0, reserve1))
    router = world.cast.router
    logs.append(
        Log(
            address,
            (signatures.V2_MINT, router.word),
            word(amount0) + word(amount1),
            "uniswap_v2_mints",
            ((router.address, amount0, amount1),),
        )
    )
    return logs


def burn_v2(world: World, pool: Pool, owner: Account, shares: int) -> list[Log]:
    """Take liquidity out of a pair."""
    address = pool.account.address
    reserve0, reserve1 = world.get(address + RESERVE0), world.get(address + RESERVE1)
    supply = world.get(address + SUPPLY)
    amount0, amount1 = shares * reserve0 // supply, shares * reserve1 // supply
    lp = lp_token(pool)
    logs = [
        world.transfer(lp, owner, pool.account, shares),
        world.transfer(lp, pool.account, ZERO, shares),
        world.transfer(pool.token0, pool.account, owner, amount0),
        world.transfer(pool.token1, pool.account, owner, amount1),
    ]
    reserve0, reserve1 = reserve0 - amount0, reserve1 - amount1
    world.put(address + RESERVE0, reserve0)
    world.put(address + RESERVE1, reserve1)
    logs.append(_sync(pool, reserve0, reserve1))
    router = world.cast.router
    logs.append(
        Log(
            address,
            (signatures.V2_BURN, router.word, owner.word),
            word(amount0) + word(amount1),
            "uniswap_v2_burns",
            ((router.address, amount0, amount1, owner.address),),
        )
    )
    return logs


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


def amount_for(token: Token, microdollars: int) -> int:
    """Units of a token that were worth an amount of money when the chain started."""
    return int(microdollars * 10**token.decimals // token.price_microdollars)


def starting_price(pool: Pool) -> int:
    """Q64.96 square root of a pool's price when the chain started."""
    units0 = 10**pool.token0.decimals * pool.token1.price_microdollars
    units1 = 10**pool.token1.decimals * pool.token0.price_microdollars
    return isqrt((units1 << 192) // units0)
