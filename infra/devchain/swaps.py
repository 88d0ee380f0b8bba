"""A world and a pool in, the logs of swaps and of liquidity out: Uniswap V2.

Reserves follow the pairs' own formula, so each Sync is the consequence of the swaps before it.

Source: Uniswap v2-core and v2-periphery.
"""

from math import isqrt

from infra.devchain import signatures
from infra.devchain.cast import Account, Pool, Token
from infra.devchain.model import Log
from infra.devchain.world import SUPPLY, ZERO, World, word

RESERVE0, RESERVE1 = b"reserve0", b"reserve1"
FAIR0, FAIR1 = b"fair0", b"fair1"
"""The first reserves, whose ratio is the pair's fair price."""
MINIMUM_LIQUIDITY = 1000
_LP_DECIMALS = 18


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
    dear = reserve1 * world.get(address + FAIR0) > reserve0 * world.get(address + FAIR1)
    zero_for_one = world.sells_first(dear)
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
        world.put(address + FAIR0, amount0)
        world.put(address + FAIR1, amount1)
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


def amount_for(token: Token, microdollars: int) -> int:
    """Units of a token that were worth an amount of money when the chain started."""
    return int(microdollars * 10**token.decimals // token.price_microdollars)
