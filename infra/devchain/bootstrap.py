"""A world and a step in, the transaction that founds a piece of the economy out.

Nothing exists at genesis: contracts are created, supplies minted and pools opened by transactions
of the first blocks, so that every balance is the sum of transfers on the chain.
"""

from infra.devchain import signatures
from infra.devchain.cast import TOKENS_AT_START, TOKENS_MAX, Account, Cast, Pool, Token
from infra.devchain.model import Log, Plan
from infra.devchain.ranges import (
    FAIR_PRICE,
    LIQUIDITY,
    Q96,
    SQRT_PRICE,
    full_range,
    starting_price,
    tick_at,
)
from infra.devchain.swaps import amount_for, mint_v2
from infra.devchain.world import (
    PAIRS_CREATED,
    STEPS_DONE,
    TOKENS_LAUNCHED,
    ZERO,
    World,
    plan,
    signed_word,
    word,
)

CODE_PREFIX = bytes.fromhex("608060405234801561001057600080fd5b50")
"""How init code of the Solidity compiler begins; the rest is random."""
POOL_MICRODOLLARS = 4_000_000_000_000
LAUNCH_POOL_MICRODOLLARS = 30_000_000_000


def init_code(world: World) -> bytes:
    """Init code that no one could run."""
    return CODE_PREFIX + world.bits(1024).to_bytes(128, "big")


def _ownership(contract: Account, owner: Account) -> Log:
    return Log(contract.address, (signatures.OWNERSHIP_TRANSFERRED, ZERO.word, owner.word), b"")


def steps(cast: Cast) -> tuple[tuple[str, int], ...]:
    """The founding transactions of a chain, in order: kind and number of each."""
    order = [("shared", number) for number in range(len(cast.shared_contracts))]
    order += [("token", number) for number in range(TOKENS_AT_START)]
    order += [("nft", number) for number in range(len(cast.nfts))]
    order += [("multi", number) for number in range(len(cast.multi_tokens))]
    order += [("pair", number) for number in range(cast.pools_v2_at_start)]
    order += [("v3", number) for number in range(len(cast.pools_v3))]
    order += [("v4", number) for number in range(len(cast.pools_v4))]
    return tuple(order)


def found(world: World, kind: str, number: int) -> Plan:
    """One founding transaction."""
    cast = world.cast
    world.add(STEPS_DONE, 1)
    if kind == "shared":
        logs = [_ownership(cast.shared_contracts[number], cast.founder)]
        return plan(cast.founder, None, init_code(world), logs)
    if kind == "token":
        return launch_token(world, number)
    if kind in ("nft", "multi"):
        collection = (cast.nfts if kind == "nft" else cast.multi_tokens)[number]
        logs = [_ownership(collection.account, collection.creator)]
        return plan(collection.creator, None, init_code(world), logs)
    if kind == "pair":
        return open_pair(world, number, cast.exchange, POOL_MICRODOLLARS)
    if kind == "v3":
        return _open_v3(world, cast.pools_v3[number])
    return _open_v4(world, cast.pools_v4[number])


def launch_token(world: World, number: int) -> Plan:
    """A token's creation: its supply goes to the exchange, or to its creator if it comes later."""
    token = world.cast.tokens[number]
    holder = world.cast.exchange if number < TOKENS_AT_START else token.creator
    logs = [
        _ownership(token.account, token.creator),
        world.transfer(token, ZERO, holder, token.supply),
    ]
    world.put(TOKENS_LAUNCHED, number + 1)
    return plan(token.creator, None, init_code(world), logs)


def open_pair(world: World, number: int, owner: Account, microdollars: int) -> Plan:
    """A pair's creation by the factory, with its first liquidity."""
    cast = world.cast
    pool = cast.pools_v2[number]
    topics = (signatures.V2_PAIR_CREATED, pool.token0.account.word, pool.token1.account.word)
    row = (pool.token0.address, pool.token1.address, pool.account.address, number + 1)
    created = Log(
        cast.factory_v2.address,
        topics,
        pool.account.word + word(number + 1),
        "uniswap_v2_pairs",
        (row,),
    )
    amounts = [max(2000, amount_for(t, microdollars)) for t in (pool.token0, pool.token1)]
    logs = [created, *mint_v2(world, pool, owner, amounts[0], amounts[1])]
    world.put(PAIRS_CREATED, number + 1)
    call = signatures.CALL_ADD_LIQUIDITY + topics[1] + topics[2]
    call += word(amounts[0]) + word(amounts[1]) + bytes(64) + owner.word + word(1 << 64)
    return plan(owner, cast.router, call, logs)


def launch_next(world: World) -> Plan | None:
    """The next token's creation or its pair's; None when all have been launched."""
    cast = world.cast
    launched = world.get(TOKENS_LAUNCHED)
    paired = world.get(PAIRS_CREATED) - cast.pools_v2_at_start + TOKENS_AT_START
    if paired < launched:
        creator = cast.tokens[paired].creator
        return open_pair(world, world.get(PAIRS_CREATED), creator, LAUNCH_POOL_MICRODOLLARS)
    return launch_token(world, launched) if launched < TOKENS_MAX else None


def _liquidity(pool: Pool, sqrt_price: int) -> tuple[int, int, int]:
    """Liquidity worth the usual sum, and both amounts that it takes."""
    amount1 = amount_for(pool.token1, POOL_MICRODOLLARS)
    liquidity = amount1 * Q96 // sqrt_price
    return liquidity, liquidity * Q96 // sqrt_price, liquidity * sqrt_price // Q96


def _open_v3(world: World, pool: Pool) -> Plan:
    cast, address, owner = world.cast, pool.account.address, world.cast.exchange
    sqrt_price = starting_price(pool)
    liquidity, amount0, amount1 = _liquidity(pool, sqrt_price)
    world.put(address + SQRT_PRICE, sqrt_price)
    world.put(address + FAIR_PRICE, sqrt_price)
    world.put(address + LIQUIDITY, liquidity)
    tick, bound = tick_at(sqrt_price), full_range(pool)
    tokens = (pool.token0.account.word, pool.token1.account.word)
    created = (pool.token0.address, pool.token1.address, pool.fee, pool.spacing, address)
    logs = [
        Log(
            cast.factory_v3.address,
            (signatures.V3_POOL_CREATED, *tokens, word(pool.fee)),
            word(pool.spacing) + pool.account.word,
            "uniswap_v3_pools",
            (created,),
        ),
        Log(
            address,
            (signatures.V3_INITIALIZE,),
            word(sqrt_price) + signed_word(tick),
            "uniswap_v3_initializes",
            ((sqrt_price, tick),),
        ),
    ]
    for token, amount in ((pool.token0, amount0), (pool.token1, amount1)):
        logs += world.fund(token, owner, amount)
        logs.append(world.transfer(token, owner, pool.account, amount))
    row = (cast.router.address, owner.address, -bound, bound, liquidity, amount0, amount1)
    logs.append(
        Log(
            address,
            (signatures.V3_MINT, owner.word, signed_word(-bound), signed_word(bound)),
            cast.router.word + word(liquidity) + word(amount0) + word(amount1),
            "uniswap_v3_mints",
            (row,),
        )
    )
    return plan(owner, cast.router, signatures.CALL_EXECUTE + bytes(96), logs)


def _open_v4(world: World, pool: Pool) -> Plan:
    cast, manager, owner = world.cast, world.cast.manager_v4, world.cast.exchange
    sqrt_price = starting_price(pool)
    liquidity, amount0, amount1 = _liquidity(pool, sqrt_price)
    world.put(pool.pool_id + SQRT_PRICE, sqrt_price)
    world.put(pool.pool_id + FAIR_PRICE, sqrt_price)
    world.put(pool.pool_id + LIQUIDITY, liquidity)
    tick, bound = tick_at(sqrt_price), full_range(pool)
    currencies = (pool.token0.account, pool.token1.account)
    words = (word(pool.fee), word(pool.spacing), ZERO.word, word(sqrt_price), signed_word(tick))
    opened = (
        pool.pool_id,
        pool.token0.address,
        pool.token1.address,
        pool.fee,
        pool.spacing,
        ZERO.address,
        sqrt_price,
        tick,
    )
    changed = (pool.pool_id, cast.router.address, -bound, bound, liquidity, bytes(32))
    logs = [
        Log(
            manager.address,
            (signatures.V4_INITIALIZE, pool.pool_id, *(c.word for c in currencies)),
            b"".join(words),
            "uniswap_v4_initializes",
            (opened,),
        ),
        Log(
            manager.address,
            (signatures.V4_MODIFY_LIQUIDITY, pool.pool_id, cast.router.word),
            signed_word(-bound) + signed_word(bound) + word(liquidity) + bytes(32),
            "uniswap_v4_liquidity",
            (changed,),
        ),
    ]
    token: Token
    for token, amount in ((pool.token0, amount0), (pool.token1, amount1)):
        if token is not cast.ether:
            logs += world.fund(token, owner, amount)
            logs.append(world.transfer(token, owner, manager, amount))
    return plan(owner, cast.router, signatures.CALL_EXECUTE + bytes(96), logs)
