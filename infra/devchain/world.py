"""A state and a stream of random bits in, reads and buffered writes out.

The state is one flat mapping of byte keys to integers; balances lie under token address + holder.
Writes never touch it: whoever seals the block applies them, and can undo them.
"""

from collections.abc import Callable, Mapping
from random import Random

from infra.devchain import signatures
from infra.devchain.cast import Account, Cast, Token, account
from infra.devchain.model import Log, Plan

ZERO = account(bytes(20))
MASK_256 = (1 << 256) - 1
SUPPLY = b"supply"
NONCE = b"nonce"
TOKENS_LAUNCHED = b"tokens launched"
PAIRS_CREATED = b"pairs created"
STEPS_DONE = b"bootstrap steps done"

GAS_PLAIN = 21_000
_DEAR_SOLD = 0.6
GAS_PER_LOG = 31_000


def word(value: int) -> bytes:
    """A non-negative integer as a 32-byte word."""
    return value.to_bytes(32, "big")


def signed_word(value: int) -> bytes:
    """A signed integer as a 32-byte two's-complement word."""
    return (value & MASK_256).to_bytes(32, "big")


class World:
    """What an action sees: the cast, the state and the dice."""

    __slots__ = ("_base", "bits", "cast", "random", "writes")

    def __init__(self, cast: Cast, base: Mapping[bytes, int], dice: Random) -> None:
        self.cast = cast
        self._base = base
        self.writes: dict[bytes, int] = {}
        self.random: Callable[[], float]
        self.bits: Callable[[int], int]
        self.use(dice)

    def use(self, dice: Random) -> None:
        """Draw from other dice from now on."""
        self.random = dice.random
        self.bits = dice.getrandbits

    def get(self, key: bytes) -> int:
        """Value under a key; 0 where nothing was written."""
        value = self.writes.get(key)
        return self._base.get(key, 0) if value is None else value

    def put(self, key: bytes, value: int) -> None:
        """Write a value under a key."""
        self.writes[key] = value

    def add(self, key: bytes, amount: int) -> int:
        """Add to the value under a key and return the sum."""
        total = self.get(key) + amount
        self.writes[key] = total
        return total

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1."""
        return int(self.random() * limit)

    def sells_first(self, dear: bool) -> bool:
        """Whether a trader sells a pool's token0: more often where it is dear, so that prices
        wander around what they were at the start.
        """
        return self.random() < (_DEAR_SOLD if dear else 1 - _DEAR_SOLD)

    def actor(self) -> Account:
        """An ordinary account; a few are much busier than most."""
        draw = self.random()
        actors = self.cast.actors
        return actors[int(draw * draw * len(actors))]

    def token(self) -> Token:
        """A launched token or WETH; the first ones are much busier than the later ones."""
        launched = self.get(TOKENS_LAUNCHED)
        draw = self.random()
        number = int(draw * draw * (launched + 1))
        return self.cast.weth if number == 0 else self.cast.tokens[number - 1]

    def transfer(self, token: Token, source: Account, target: Account, amount: int) -> Log:
        """Move tokens; from the zero address they are minted, to it they are burnt."""
        address = token.account.address
        if source is ZERO:
            self.add(address + SUPPLY, amount)
        else:
            self.add(address + source.address, -amount)
        if target is ZERO:
            self.add(address + SUPPLY, -amount)
        else:
            self.add(address + target.address, amount)
        return Log(
            address,
            (signatures.TRANSFER, source.word, target.word),
            amount.to_bytes(32, "big"),
            "erc20_transfers",
            ((source.address, target.address, amount),),
        )

    def deposit(self, holder: Account, amount: int) -> Log:
        """Wrap ether."""
        weth = self.cast.weth.account.address
        self.add(weth + holder.address, amount)
        self.add(weth + SUPPLY, amount)
        topics = (signatures.DEPOSIT, holder.word)
        row = (holder.address, amount)
        return Log(weth, topics, amount.to_bytes(32, "big"), "weth_deposits", (row,))

    def withdraw(self, holder: Account, amount: int) -> Log:
        """Unwrap ether."""
        weth = self.cast.weth.account.address
        self.add(weth + holder.address, -amount)
        self.add(weth + SUPPLY, -amount)
        topics = (signatures.WITHDRAWAL, holder.word)
        row = (holder.address, amount)
        return Log(weth, topics, amount.to_bytes(32, "big"), "weth_withdrawals", (row,))

    def approve(self, token: Token, owner: Account, spender: Account, amount: int) -> Log:
        """Allow a spender."""
        return Log(
            token.account.address,
            (signatures.APPROVAL, owner.word, spender.word),
            amount.to_bytes(32, "big"),
            "erc20_approvals",
            ((owner.address, spender.address, amount),),
        )

    def fund(self, token: Token, holder: Account, amount: int) -> list[Log]:
        """Make sure that a holder has an amount: ether is wrapped, other tokens are minted."""
        missing = amount - self.get(token.account.address + holder.address)
        if missing <= 0:
            return []
        if token is self.cast.weth:
            return [self.deposit(holder, missing)]
        return [self.transfer(token, ZERO, holder, missing)]


def plan(
    sender: Account,
    target: Account | None,
    call: bytes,
    logs: list[Log],
    value: int = 0,
) -> Plan:
    """A successful transaction, with the gas that its logs and call data suggest."""
    gas = GAS_PLAIN + 12 * len(call) + GAS_PER_LOG * len(logs)
    to = target.address if target else None
    return Plan(sender.address, to, value, call, tuple(logs), gas, secret=sender.secret)
