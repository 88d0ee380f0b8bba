"""A world in, one ordinary transaction and its logs out: what people do on a chain all day."""

from collections.abc import Callable

from infra.devchain import signatures
from infra.devchain.bootstrap import init_code
from infra.devchain.cast import WAD, Account, Collection
from infra.devchain.model import FAILURES, Log, Plan, Row
from infra.devchain.ranges import collect_v3, swap_v3, swap_v4
from infra.devchain.swaps import RESERVE0, RESERVE1, burn_v2, mint_v2, swap_v2
from infra.devchain.world import (
    GAS_PLAIN,
    PAIRS_CREATED,
    SUPPLY,
    ZERO,
    World,
    plan,
    word,
)

MAX_APPROVAL = (1 << 256) - 1
_HIGH_ID = 1 << 200
_PROVIDERS_BITS = 4
_PAIRS_PROVIDED = 8
"""Few people provide liquidity, to few pairs: so that they have some to take out again."""

Action = Callable[[World], Plan]


def pay(world: World) -> Plan:
    """Send ether: no log."""
    sender, target = world.actor(), world.actor()
    amount = world.bits(61)
    return Plan(sender.address, target.address, amount, b"", (), GAS_PLAIN, secret=sender.secret)


def send_token(world: World) -> Plan:
    """Send tokens of one's own, or have the exchange send some: one log."""
    token, sender, target = world.token(), world.actor(), world.actor()
    balance = world.get(token.account.address + sender.address)
    if balance == 0:
        sender = world.cast.exchange
        balance = world.get(token.account.address + sender.address) >> 16
    draw = world.bits(12)
    amount = balance if draw < 40 else balance * draw >> 13
    logs = [world.transfer(token, sender, target, amount)]
    call = signatures.CALL_TRANSFER + target.word + amount.to_bytes(32, "big")
    return plan(sender, token.account, call, logs)


def _approve(world: World) -> Plan:
    token, owner = world.token(), world.actor()
    draw = world.bits(4)
    amount = MAX_APPROVAL if draw < 8 else 0 if draw == 8 else world.bits(80)
    router = world.cast.router
    logs = [world.approve(token, owner, router, amount)]
    call = signatures.CALL_APPROVE + router.word + amount.to_bytes(32, "big")
    return plan(owner, token.account, call, logs)


def _wrap(world: World) -> Plan:
    holder, weth = world.actor(), world.cast.weth
    balance = world.get(weth.account.address + holder.address)
    if balance and world.bits(1):
        amount = max(1, balance >> world.bits(2))
        call = signatures.CALL_WITHDRAW + word(amount)
        return plan(holder, weth.account, call, [world.withdraw(holder, amount)])
    amount = world.bits(62) + 1
    logs = [world.deposit(holder, amount)]
    return plan(holder, weth.account, signatures.CALL_DEPOSIT, logs, amount)


def _nft_transfer(
    world: World, collection: Collection, source: Account, target: Account, token_id: int
) -> Log:
    id_word = word(token_id)
    topics = (signatures.TRANSFER, source.word, target.word, id_word)
    row = (source.address, target.address, token_id)
    return Log(collection.account.address, topics, b"", "erc721_transfers", (row,))


def _nft(world: World) -> Plan:
    """Mint an NFT, or move one; ids of the third collection are names' hashes, beyond 64 bits."""
    number = world.below(len(world.cast.nfts))
    collection = world.cast.nfts[number]
    contract = collection.account.address
    minted = world.get(contract + SUPPLY)
    offset = _HIGH_ID if number == 2 else 0
    owner_number = world.below(len(world.cast.actors))
    target = world.cast.actors[owner_number]
    if minted == 0 or world.bits(2) == 0:
        world.put(contract + SUPPLY, minted + 1)
        world.put(contract + word(minted), owner_number)
        logs = [_nft_transfer(world, collection, ZERO, target, offset + minted)]
        return plan(target, collection.account, signatures.CALL_MINT + target.word, logs)
    index = world.below(minted)
    source = world.cast.actors[world.get(contract + word(index))]
    world.put(contract + word(index), owner_number)
    token_id = offset + index
    logs = [_nft_transfer(world, collection, source, target, token_id)]
    if world.bits(2) == 0:
        topics = (signatures.APPROVAL, source.word, ZERO.word, word(token_id))
        row = (source.address, ZERO.address, token_id)
        logs.insert(0, Log(contract, topics, b"", "erc721_approvals", (row,)))
    call = signatures.CALL_SAFE_TRANSFER + source.word + target.word + word(token_id)
    return plan(source, collection.account, call, logs)


def _approve_all(world: World) -> Plan:
    owner, operator = world.actor(), world.cast.operator
    collections = world.cast.nfts + world.cast.multi_tokens
    collection = collections[world.below(len(collections))].account
    flag = int(world.bits(3) > 0)
    topics = (signatures.APPROVAL_FOR_ALL, owner.word, operator.word)
    row = (owner.address, operator.address, flag)
    logs = [Log(collection.address, topics, word(flag), "approvals_for_all", (row,))]
    call = signatures.CALL_SET_APPROVAL_FOR_ALL + operator.word + word(flag)
    return plan(owner, collection, call, logs)


def _multi(world: World) -> Plan:
    """Mint or move tokens of an ERC-1155 contract: one id, or a batch (also an empty one)."""
    collections = world.cast.multi_tokens
    collection = collections[world.below(len(collections))].account
    sender, target = world.actor(), world.actor()
    batch = world.bits(1)
    count = world.below(6) if batch else 1
    moves = []
    source = sender
    if world.bits(1):
        source = ZERO
    for _ in range(count):
        token_id, amount = world.below(40), world.bits(8)
        holder = collection.address + word(token_id)
        if source is not ZERO:
            amount = min(amount, world.get(holder + source.address))
            world.add(holder + source.address, -amount)
        world.add(holder + target.address, amount)
        moves.append((token_id, amount))
    heads = (sender.word, source.word, target.word)
    rows = tuple((sender.address, source.address, target.address, *move) for move in moves)
    if batch:
        ids = b"".join([word(move[0]) for move in moves])
        amounts = b"".join([word(move[1]) for move in moves])
        length = word(count)
        data = word(64) + word(96 + 32 * count) + length + ids + length + amounts
        topics = (signatures.TRANSFER_BATCH, *heads)
    else:
        data = word(moves[0][0]) + word(moves[0][1])
        topics = (signatures.TRANSFER_SINGLE, *heads)
    log = Log(collection.address, topics, data, "erc1155_transfers", rows)
    call = signatures.CALL_SAFE_TRANSFER_1155 + heads[1] + heads[2] + data
    return plan(sender, collection, call, [log])


def _deploy(world: World) -> Plan:
    """Create a contract that does nothing."""
    return plan(world.actor(), None, init_code(world), [])


def _unnamed(world: World) -> Plan:
    """Emit a log that no pack declares: anonymous, or with topics of a private meaning."""
    sender, contract = world.actor(), world.cast.operator
    count = world.bits(2)
    topics = tuple(world.bits(256).to_bytes(32, "big") for _ in range(count))
    data = world.bits(512).to_bytes(64, "big")[: world.bits(6)]
    return plan(sender, contract, data, [Log(contract.address, topics, data)])


def shout(world: World, size: int) -> Plan:
    """Emit an undeclared log of some size."""
    sender, contract = world.actor(), world.cast.operator
    log = Log(contract.address, (signatures.SHOUT,), world.bits(8 * size).to_bytes(size, "big"))
    return plan(sender, contract, b"", [log])


def _garbage(world: World) -> Plan:
    """Emit a log whose topic0 is well known and whose rest does not decode."""
    sender, contract, target = world.actor(), world.cast.operator, world.actor()
    pair = (sender.word, target.word)
    topics, data, reason = (
        ((signatures.TRANSFER, *pair), bytes(31), b"short"),
        ((signatures.V2_SWAP, *pair), word(7) * 3, b"short"),
        # The ids lie beyond the end.
        ((signatures.TRANSFER_BATCH, sender.word, *pair), word(1 << 40) * 2, b"pointer"),
        # An address with dirt in its upper bytes.
        ((signatures.TRANSFER, b"\xff" * 32, target.word), word(1), b"value"),
        # Nobody declares a Sync with an indexed parameter.
        ((signatures.V2_SYNC, sender.word), word(1), b"topics"),
    )[world.below(5)]
    row = (topics[0], len(topics), len(data), reason)
    log = Log(contract.address, topics, data, FAILURES, (row,))
    return plan(sender, contract, data[:32], [log])


def _oddities(world: World) -> Plan:
    """Emit what early tokens and multi-tokens do: unindexed transfers, metadata URIs."""
    sender, target = world.actor(), world.actor()
    if world.bits(1):
        contract = world.cast.operator
        amount = world.bits(40)
        row: Row = (sender.address, target.address, amount)
        indexed = world.bits(1)
        words = sender.word + target.word + word(amount)
        topics = (signatures.TRANSFER, sender.word) if indexed else (signatures.TRANSFER,)
        data = words[32:] if indexed else words
        log = Log(contract.address, topics, data, "nonstandard_transfers", (row,))
    else:
        contract = world.cast.multi_tokens[0].account
        token_id = world.below(40)
        text = f"ipfs://headrace-devchain/{token_id}.json".encode()
        data = word(32) + word(len(text)) + text + bytes(-len(text) % 32)
        topics = (signatures.URI, word(token_id))
        log = Log(contract.address, topics, data, "erc1155_uris", ((text, token_id),))
    return plan(sender, contract, data[:36], [log])


def _swap_v2(world: World) -> Plan:
    """Swap in one pair, or through two that share WETH."""
    trader = world.actor()
    pools = world.cast.pools_v2
    draw = world.random()
    pool = pools[int(draw * draw * world.get(PAIRS_CREATED))]
    logs = swap_v2(world, pool, trader, trader, world.random() ** 3 * 0.01)
    if world.bits(2) == 0:
        other = pools[world.below(world.get(PAIRS_CREATED))]
        logs += swap_v2(world, other, trader, trader, world.random() ** 3 * 0.01)
    call = signatures.CALL_SWAP + word(world.bits(60)) + word(0) + word(160) + trader.word
    path = pool.token0.account.word + pool.token1.account.word
    call += word(1 << 33) + word(2) + path
    return plan(trader, world.cast.router, call, logs)


def _swap_v3(world: World) -> Plan:
    trader, pools = world.actor(), world.cast.pools_v3
    logs = swap_v3(world, pools[world.below(len(pools))], trader, world.random() ** 3 * 0.01)
    return plan(trader, world.cast.router, signatures.CALL_EXECUTE + word(96) * 3, logs)


def _collect_v3(world: World) -> Plan:
    """Collect the fees of a V3 position: a burn of nothing, then what is due."""
    owner, pools = world.cast.exchange, world.cast.pools_v3
    logs = collect_v3(world, pools[world.below(len(pools))], owner)
    return plan(owner, world.cast.router, signatures.CALL_EXECUTE + owner.word, logs)


def _swap_v4(world: World) -> Plan:
    trader, pools = world.actor(), world.cast.pools_v4
    logs = swap_v4(world, pools[world.below(len(pools))], trader, world.random() ** 3 * 0.01)
    return plan(trader, world.cast.router, signatures.CALL_EXECUTE + word(96) * 3, logs)


def _liquidity(world: World) -> Plan:
    """Add liquidity to a pair, or take one's own out."""
    owner = world.cast.actors[world.bits(_PROVIDERS_BITS)]
    pool = world.cast.pools_v2[world.below(min(_PAIRS_PROVIDED, world.get(PAIRS_CREATED)))]
    address = pool.account.address
    shares = world.get(address + owner.address)
    if shares > 1000 and world.bits(1):
        logs = burn_v2(world, pool, owner, shares >> world.bits(1))
        call = signatures.CALL_REMOVE_LIQUIDITY
    else:
        # Rounded up, so that a thin pool still gives at least one share for both amounts.
        divisor = 500 + world.bits(12)
        reserves = world.get(address + RESERVE0), world.get(address + RESERVE1)
        amounts = [-(-reserve // divisor) for reserve in reserves]
        logs = mint_v2(world, pool, owner, amounts[0], amounts[1])
        call = signatures.CALL_ADD_LIQUIDITY
    call += pool.token0.account.word + pool.token1.account.word + owner.word
    return plan(owner, world.cast.router, call, logs)


def _sell_nft(world: World) -> Plan:
    """Sell an NFT for WETH through the marketplace, which logs an event of its own."""
    sale = _nft(world)
    buyer, seller, weth = world.actor(), world.actor(), world.cast.weth
    price = world.bits(59) + WAD // 100
    logs = world.fund(weth, buyer, price)
    logs.append(world.transfer(weth, buyer, seller, price))
    logs += sale.logs
    topics = (signatures.ORDER_FULFILLED, world.bits(256).to_bytes(32))
    logs.append(Log(world.cast.operator.address, topics, buyer.word + word(price)))
    return plan(buyer, world.cast.operator, signatures.CALL_EXECUTE + buyer.word, logs)


def disperse(world: World, count: int) -> Plan:
    """Send one token to many holders: exactly ``count`` logs."""
    sender, token = world.cast.exchange, world.token()
    if token is world.cast.weth:
        token = world.cast.tokens[0]
    actors = world.cast.actors
    total = len(actors)
    share = (world.get(token.account.address + sender.address) >> 12) // max(1, count)
    logs = [
        world.transfer(token, sender, actors[world.below(total)], share * world.bits(4) >> 4)
        for _ in range(count)
    ]
    call = signatures.CALL_DISPERSE + token.account.word + word(count)
    return plan(sender, world.cast.operator, call, logs)


def _airdrop(world: World) -> Plan:
    return disperse(world, 2 + world.bits(3))


def fail(world: World) -> Plan:
    """A swap that runs into its slippage limit: it pays for gas and changes nothing."""
    trader = world.actor()
    call = signatures.CALL_SWAP + word(world.bits(60)) + word(0) + word(160) + trader.word
    gas = GAS_PLAIN + 12 * len(call) + world.bits(16)
    to = world.cast.router.address
    return Plan(trader.address, to, 0, call, (), gas, failed=True, secret=trader.secret)


def _table(weights: tuple[tuple[Action, int], ...]) -> tuple[Action, ...]:
    return tuple(action for action, weight in weights for _ in range(weight))


LIGHT = _table(
    (
        (pay, 30),
        (send_token, 120),
        (_approve, 26),
        (_wrap, 24),
        (_nft, 22),
        (_multi, 14),
        (_approve_all, 6),
        (_deploy, 3),
        (_unnamed, 6),
        (_garbage, 1),
        (_oddities, 2),
    )
)
HEAVY = _table(
    (
        (_swap_v2, 40),
        (_swap_v3, 30),
        (_swap_v4, 16),
        (_collect_v3, 2),
        (_liquidity, 12),
        (_sell_nft, 8),
        (_airdrop, 8),
    )
)
LOGS_HEAVY_MAX = 12
"""No ordinary action emits more logs."""
LOGS_LIGHT_MAX = 2
LIGHT_MEAN, HEAVY_MEAN = 0.86, 4.3
"""Mean number of logs of each kind of action."""
