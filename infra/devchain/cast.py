"""A seed in, the people, tokens, pools and collections of a synthetic economy out."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from coincurve import PublicKey

from infra.devchain.signatures import topic
from ingest.keccak import keccak
from ingest.rlp import encode_bytes, encode_list, encode_uint

ACTORS = 512
"""Ordinary accounts."""
TOKENS_AT_START = 12
TOKENS_MAX = 96
"""Tokens that may ever be launched."""
ETHER_ADDRESS = bytes(20)
WAD = 10**18


class Account(NamedTuple):
    """An address, the same as a 32-byte word, and the key that signs for it."""

    address: bytes
    word: bytes
    secret: bytes = b""
    """Private key; empty for contracts."""


class Token(NamedTuple):
    """An ERC-20 token."""

    account: Account
    creator: Account
    name: str
    symbol: str
    decimals: int
    price_microdollars: int
    """What a whole token costs when the chain starts."""
    supply: int
    """Minted at creation, in the smallest unit."""

    @property
    def address(self) -> bytes:
        """Address of the contract."""
        return self.account.address


class Pool(NamedTuple):
    """A pool of two tokens; ``token0`` sorts before ``token1``."""

    account: Account
    token0: Token
    token1: Token
    fee: int
    """In millionths."""
    spacing: int
    """Tick spacing; 0 for a V2 pair."""
    pool_id: bytes = b""
    """V4 only: hash of the pool's key."""


class Collection(NamedTuple):
    """An ERC-721 or ERC-1155 contract."""

    account: Account
    creator: Account
    name: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody and everything that may ever appear on a chain of one seed."""

    actors: tuple[Account, ...]
    exchange: Account
    """A custodial hot wallet, which holds most of every token at the start."""
    router: Account
    operator: Account
    """A marketplace that moves NFTs for their owners."""
    factory_v2: Account
    factory_v3: Account
    manager_v4: Account
    founder: Account
    """Who deploys the shared contracts, in the order of `shared_contracts`."""
    shared_contracts: tuple[Account, ...]
    weth: Token
    ether: Token
    tokens: tuple[Token, ...]
    pools_v2: tuple[Pool, ...]
    """Pairs that exist from the start first, then one with WETH for each token launched later."""
    pools_v2_at_start: int
    pools_v3: tuple[Pool, ...]
    pools_v4: tuple[Pool, ...]
    nfts: tuple[Collection, ...]
    multi_tokens: tuple[Collection, ...]


def account(address: bytes) -> Account:
    """An account of a 20-byte address."""
    return Account(address, bytes(12) + address)


def created_address(sender: bytes, nonce: int) -> bytes:
    """Address of the contract that ``sender`` creates with ``nonce`` (Yellow Paper, section 7)."""
    return keccak(encode_list((encode_bytes(sender), encode_uint(nonce))))[12:]


def create2_address(deployer: bytes, salt: bytes, code_hash: bytes) -> bytes:
    """Address of a contract created by CREATE2 (EIP-1014)."""
    return keccak(b"\xff" + deployer + salt + code_hash)[12:]


def _named(seed: int, role: str, number: int = 0) -> Account:
    """An account with a key, which is no secret: it follows from the seed."""
    secret = keccak(f"headrace devchain {seed} {role} {number}".encode())
    public = PublicKey.from_secret(secret).format(compressed=False)
    address = keccak(public[1:])[12:]
    return Account(address, bytes(12) + address, secret)


_CATALOG = (
    ("Weir USD", "WUSD", 6, 1_000_000),
    ("Penstock Dollar", "PUSD", 6, 1_000_000),
    ("Brook Stablecoin", "BRK", 18, 1_000_000),
    ("Wrapped Aqua Bitcoin", "aBTC", 8, 60_000_000_000),
    ("Sluice", "SLCE", 18, 14_000_000),
    ("Headwater Governance", "HEAD", 18, 7_500_000),
    ("Tailrace", "TAIL", 18, 900_000),
    ("Francis Turbine", "FRAN", 18, 95_000_000),
    ("Pelton", "PELT", 18, 3_100_000),
    ("Kaplan Network", "KPLN", 18, 420_000),
    ("Millpond Inu", "MINU", 9, 12),
    ("Staked Wheel Ether", "swETH", 18, 2_600_000_000),
)
_FIRST_WORDS = ("Mill", "River", "Delta", "Rapid", "Spring", "Glacier", "Canal", "Basin", "Lock")
_SECOND_WORDS = ("Coin", "Finance", "Protocol", "Swap", "Inu", "DAO", "Chain", "Cash", "Token")
_COLLECTIONS = (("Water Wheels", "WHEEL"), ("Otters of the Dam", "OTTER"), ("Stream IDs", "SID"))
_MULTI_TOKENS = (("Mill Parts", "PARTS"), ("Fishing Licences", "FISH"))
_V2_CODE_HASH = topic("headrace devchain pair")
_V3_CODE_HASH = topic("headrace devchain pool")


def _token(seed: int, number: int) -> Token:
    creator = _named(seed, "creator", number)
    if number < TOKENS_AT_START:
        name, symbol, decimals, price = _CATALOG[number]
    else:
        draw = int.from_bytes(keccak(f"{seed} token {number}".encode())[:8], "big")
        first, second = _FIRST_WORDS[draw % 9], _SECOND_WORDS[draw // 9 % 9]
        name = f"{first} {second} {number}"
        symbol = f"{first[:2]}{second[:2]}{number}".upper()
        decimals = (18, 18, 18, 9, 6, 8, 0)[draw // 81 % 7]
        price = 10 ** (2 + draw // 1000 % 6)
    supply = 2_000_000_000_000_000 * 10**decimals // price
    made = account(created_address(creator.address, 0))
    return Token(made, creator, name, symbol, decimals, price, supply)


def _sorted(first: Token, second: Token) -> tuple[Token, Token]:
    return (first, second) if first.address < second.address else (second, first)


def _pair(factory: Account, first: Token, second: Token) -> Pool:
    token0, token1 = _sorted(first, second)
    salt = keccak(token0.address + token1.address)
    made = account(create2_address(factory.address, salt, _V2_CODE_HASH))
    return Pool(made, token0, token1, 3000, 0)


def _pool_v3(factory: Account, first: Token, second: Token, fee: int) -> Pool:
    token0, token1 = _sorted(first, second)
    salt = keccak(token0.account.word + token1.account.word + fee.to_bytes(32, "big"))
    made = account(create2_address(factory.address, salt, _V3_CODE_HASH))
    return Pool(made, token0, token1, fee, {500: 10, 3000: 60, 10000: 200}[fee])


def _pool_v4(manager: Account, first: Token, second: Token, fee: int) -> Pool:
    token0, token1 = _sorted(first, second)
    spacing = {500: 10, 3000: 60, 10000: 200}[fee]
    words = (fee.to_bytes(32, "big"), spacing.to_bytes(32, "big"), bytes(32))
    pool_id = keccak(token0.account.word + token1.account.word + b"".join(words))
    return Pool(manager, token0, token1, fee, spacing, pool_id)


def _collections(
    seed: int, role: str, names: tuple[tuple[str, str], ...]
) -> tuple[Collection, ...]:
    made = []
    for number, (name, symbol) in enumerate(names):
        creator = _named(seed, role, number)
        made.append(Collection(account(created_address(creator.address, 0)), creator, name, symbol))
    return tuple(made)


@lru_cache(maxsize=8)
def cast_of(seed: int) -> Cast:
    """Everybody of one seed.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Cast
        Always the same for the same seed; contracts have the addresses that their creation
        transactions give them.
    """
    founder = _named(seed, "founder")
    shared = tuple(account(created_address(founder.address, nonce)) for nonce in range(6))
    weth_account, factory_v2, factory_v3, manager_v4, router, operator = shared
    weth = Token(weth_account, founder, "Wrapped Ether", "WETH", 18, 2_500_000_000, 0)
    ether = Token(account(ETHER_ADDRESS), founder, "Ether", "ETH", 18, 2_500_000_000, 0)
    tokens = tuple(_token(seed, number) for number in range(TOKENS_MAX))
    stable, other, brook, bitcoin = tokens[:4]
    pairs = [_pair(factory_v2, weth, token) for token in tokens[:10]]
    pairs += [_pair(factory_v2, stable, other), _pair(factory_v2, stable, tokens[4])]
    at_start = len(pairs)
    pairs += [_pair(factory_v2, weth, token) for token in tokens[TOKENS_AT_START:]]
    pools_v3 = (
        _pool_v3(factory_v3, weth, stable, 500),
        _pool_v3(factory_v3, weth, other, 3000),
        _pool_v3(factory_v3, weth, bitcoin, 3000),
        _pool_v3(factory_v3, stable, brook, 500),
        _pool_v3(factory_v3, weth, tokens[10], 10000),
        _pool_v3(factory_v3, weth, tokens[11], 500),
    )
    pools_v4 = (
        _pool_v4(manager_v4, ether, stable, 500),
        _pool_v4(manager_v4, ether, bitcoin, 3000),
        _pool_v4(manager_v4, stable, other, 500),
        _pool_v4(manager_v4, weth, tokens[5], 10000),
    )
    return Cast(
        actors=tuple(_named(seed, "actor", number) for number in range(ACTORS)),
        exchange=_named(seed, "exchange"),
        router=router,
        operator=operator,
        factory_v2=factory_v2,
        factory_v3=factory_v3,
        manager_v4=manager_v4,
        founder=founder,
        shared_contracts=shared,
        weth=weth,
        ether=ether,
        tokens=tokens,
        pools_v2=tuple(pairs),
        pools_v2_at_start=at_start,
        pools_v3=pools_v3,
        pools_v4=pools_v4,
        nfts=_collections(seed, "collection", _COLLECTIONS),
        multi_tokens=_collections(seed, "multi", _MULTI_TOKENS),
    )
