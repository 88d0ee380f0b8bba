"""The target and data of an eth_call in, what the synthetic contract returns out."""

from collections.abc import Callable
from functools import lru_cache

from infra.devchain.cast import Cast, Collection, Pool, Token, cast_of
from infra.devchain.signatures import selector
from infra.devchain.swaps import RESERVE0, RESERVE1, lp_token
from infra.devchain.world import SUPPLY, word

Read = Callable[[bytes], int]
"""Reads a value of the state at the block asked for."""
BYTES32_TOKEN = 9
"""The token whose name and symbol are bytes32, as those of some early tokens are."""
_NAME, _SYMBOL = selector("name()"), selector("symbol()")
_DECIMALS, _TOTAL_SUPPLY = selector("decimals()"), selector("totalSupply()")
_BALANCE_OF = selector("balanceOf(address)")
_RESERVES = selector("getReserves()")
_TOKEN0, _TOKEN1 = selector("token0()"), selector("token1()")


class Reverted(Exception):
    """The contract has no such function."""


def _string(text: str) -> bytes:
    encoded = text.encode()
    padded = encoded + bytes(-len(encoded) % 32)
    return word(32) + word(len(encoded)) + padded


@lru_cache(maxsize=8)
def _contracts(seed: int) -> dict[bytes, Token | Collection | Pool]:
    cast: Cast = cast_of(seed)
    known: dict[bytes, Token | Collection | Pool] = {
        token.address: token for token in (cast.weth, *cast.tokens)
    }
    known |= {c.account.address: c for c in (*cast.nfts, *cast.multi_tokens)}
    known |= {pool.account.address: pool for pool in (*cast.pools_v3, *cast.pools_v2)}
    return known


def _metadata(named: Token | Collection, function: bytes, as_bytes32: bool) -> bytes | None:
    if function not in (_NAME, _SYMBOL):
        return None
    text = named.name if function == _NAME else named.symbol
    return text.encode().ljust(32, b"\0") if as_bytes32 else _string(text)


def _token(token: Token, call: bytes, read: Read, as_bytes32: bool) -> bytes:
    function = call[:4]
    described = _metadata(token, function, as_bytes32)
    if described is not None:
        return described
    if function == _DECIMALS:
        return word(token.decimals)
    if function == _TOTAL_SUPPLY:
        return word(read(token.address + SUPPLY))
    if function == _BALANCE_OF and len(call) >= 36:
        return word(read(token.address + call[16:36]))
    raise Reverted


def _pool(pool: Pool, call: bytes, read: Read) -> bytes:
    function, address = call[:4], pool.account.address
    if function in (_TOKEN0, _TOKEN1):
        return (pool.token0 if function == _TOKEN0 else pool.token1).account.word
    if pool.spacing:
        raise Reverted
    if function == _RESERVES:
        return word(read(address + RESERVE0)) + word(read(address + RESERVE1)) + word(0)
    return _token(lp_token(pool), call, read, as_bytes32=False)


def call_contract(seed: int, target: bytes, call: bytes, read: Read) -> bytes:
    """Answer a call to a contract of the cast.

    Parameters
    ----------
    seed : int
        The chain's.
    target : bytes
        20 bytes.
    call : bytes
        Selector and arguments.
    read : callable
        Reads the state.

    Returns
    -------
    bytes
        Empty for an address without a contract.

    Raises
    ------
    Reverted
        If the contract has no such function.
    """
    contract = _contracts(seed).get(target)
    if contract is None:
        return b""
    if isinstance(contract, Pool):
        return _pool(contract, call, read)
    if isinstance(contract, Token):
        odd = contract is cast_of(seed).tokens[BYTES32_TOKEN]
        return _token(contract, call, read, as_bytes32=odd)
    described = _metadata(contract, call[:4], as_bytes32=False)
    if described is None:
        raise Reverted
    return described
