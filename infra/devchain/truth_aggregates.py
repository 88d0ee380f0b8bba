"""Rows of decoded events in, the rows of the aggregates that they add up to out.

Plain Python over unbounded integers, one row after the other: what the vectorised aggregator is
held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

Row = dict[str, Any]
Key = tuple[Any, ...]

_MODULUS = 1 << 256
_ZERO = bytes(20)
_BLOCK = ("block_number", "block_hash", "block_time")
_STANDARDS = ("erc20_transfers", "erc721_transfers", "erc1155_transfers")
_PROTOCOLS = ("uniswap_v2_swaps", "uniswap_v3_swaps", "uniswap_v4_swaps")
_SYNCS = "uniswap_v2_syncs"


def aggregates_of(tables: Mapping[str, Iterable[Row]]) -> Iterator[tuple[str, Key, Row]]:
    """The aggregates' rows: table, key, row.

    Parameters
    ----------
    tables
        Rows of decoded events by table, in the order of the chain; a table may be missing.

    Yields
    ------
    tuple of str, Key and Row
        The key is the row's identity without the block's hash.
    """
    flows: dict[Key, list[Row]] = {}
    for standard, table in enumerate(_STANDARDS):
        for row in tables.get(table, ()):
            key = (row["block_number"], row["address"], standard)
            flows.setdefault(key, []).append(row)
    for key, rows in flows.items():
        yield "token_flows", key, _flow(key, rows)
    syncs = {(row["block_number"], row["log_index"]): row for row in tables.get(_SYNCS, ())}
    pools: dict[Key, list[Row]] = {}
    for protocol, table in enumerate(_PROTOCOLS):
        for row in tables.get(table, ()):
            pool_id = row.get("id", bytes(12) + row["address"])
            pool = (row["block_number"], row["address"], pool_id, protocol)
            pools.setdefault(pool, []).append(row)
    for key, rows in pools.items():
        yield "pool_trades", key, _trades(key, rows, syncs)


def _flow(key: Key, rows: Sequence[Row]) -> Row:
    def amount(row: Row) -> int:
        return int(row.get("value", 1))

    mints = [row for row in rows if row["from_address"] == _ZERO]
    burns = [row for row in rows if row["to_address"] == _ZERO]
    sums = [sum(map(amount, some)) for some in (rows, mints, burns)]
    return {
        **{name: rows[0][name] for name in _BLOCK},
        "address": key[1],
        "standard": key[2],
        "transfer_count": len(rows),
        "mint_count": len(mints),
        "burn_count": len(burns),
        "value": sums[0] % _MODULUS,
        "minted_value": sums[1] % _MODULUS,
        "burned_value": sums[2] % _MODULUS,
        "value_overflow": any(total >= _MODULUS for total in sums),
    }


def _trades(key: Key, rows: Sequence[Row], syncs: Mapping[Key, Row]) -> Row:
    moved = [sum(column) for column in zip(*(_amounts(row, key[3]) for row in rows), strict=True)]
    return {
        **{name: rows[0][name] for name in _BLOCK},
        "address": key[1],
        "pool_id": key[2],
        "protocol": key[3],
        "trade_count": len(rows),
        "first_log_index": rows[0]["log_index"],
        "last_log_index": rows[-1]["log_index"],
        "amount0_in": moved[0] % _MODULUS,
        "amount0_out": moved[1] % _MODULUS,
        "amount1_in": moved[2] % _MODULUS,
        "amount1_out": moved[3] % _MODULUS,
        "amount_overflow": any(total >= _MODULUS for total in moved),
        **_prices([state for row in rows if (state := _state(row, key[3], syncs))]),
    }


def _amounts(row: Row, protocol: int) -> tuple[int, int, int, int]:
    """What the pool received and paid: amount0 in, out, amount1 in, out."""
    if protocol == 0:
        return row["amount0_in"], row["amount0_out"], row["amount1_in"], row["amount1_out"]
    sign = 1 if protocol == 1 else -1
    zero, one = sign * row["amount0"], sign * row["amount1"]
    return max(zero, 0), max(-zero, 0), max(one, 0), max(-one, 0)


def _state(
    row: Row, protocol: int, syncs: Mapping[Key, Row]
) -> tuple[Fraction, tuple[int | None, int | None, int | None]] | None:
    """The price after a swap, and its three columns; None where it is unknown."""
    if protocol:
        return Fraction(row["sqrt_price_x96"]), (row["sqrt_price_x96"], None, None)
    sync = syncs.get((row["block_number"], row["log_index"] - 1))
    if sync is None or sync["address"] != row["address"] or not sync["reserve0"]:
        return None
    price = Fraction(sync["reserve1"], sync["reserve0"])
    return price, (None, sync["reserve0"], sync["reserve1"])


def _prices(
    states: Sequence[tuple[Fraction, tuple[int | None, int | None, int | None]]],
) -> Row:
    unknown = (None, None, None)
    shown = {
        "open": states[0][1] if states else unknown,
        "high": max(states, key=lambda state: state[0])[1] if states else unknown,
        "low": min(states, key=lambda state: state[0])[1] if states else unknown,
        "close": states[-1][1] if states else unknown,
    }
    names = ("sqrt_price_x96", "reserve0", "reserve1")
    return {
        f"{moment}_{name}": value
        for moment, values in shown.items()
        for name, value in zip(names, values, strict=True)
    }
