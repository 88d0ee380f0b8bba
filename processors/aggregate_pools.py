"""Swap events in, the rows of ``pool_trades`` out: one a block and pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregate_groups import (
    Groups,
    Mask,
    Sums,
    carry_over,
    group_rows,
    is_zero,
    key_of,
    leading_of,
    sum_words,
    used_words,
    words_of,
)
from processors.aggregate_prices import find_extremes
from schemas.columns import Bytes, Column, ColumnBlock, Nullable
from schemas.tables import POOL_TRADES

_V2, _V4 = 0, 2
_KEY_WORDS = 7
"""Address, pool id and protocol."""
_MOMENTS = ("open", "high", "low", "close")
_SIGN = np.uint32(1 << 31)


@dataclass(frozen=True, slots=True)
class Trades:
    """The swaps of one protocol."""

    protocol: int
    """Its number in the column `protocol`."""
    block: ColumnBlock
    """The decoded swaps."""
    pool_ids: Bytes
    """uint8[n, 32]: ids of the pools; where they have none, their addresses as words."""
    amounts: Sums
    """uint64[n, 32]: amount0 in, out, amount1 in, out, eight words each."""
    prices: tuple[Bytes, Bytes]
    """uint8[n, 32] each: numerator and denominator of the price after the swap, or of its root."""
    priced: Mask
    """bool[n]: whether that price is known."""


def pool_trades(tables: Mapping[str, ColumnBlock]) -> ColumnBlock:
    """Add up the swaps of each block and pool.

    Parameters
    ----------
    tables
        The decoded events by table, rows in the order of the chain; those without rows may be
        missing.
    """
    parts = [
        read(protocol, tables[table], tables)
        for protocol, (table, read) in enumerate(_SOURCES)
        if table in tables
    ]
    if not parts:
        return ColumnBlock(POOL_TRADES.name, 0, {})

    def column(name: str) -> npt.NDArray[Any]:
        taken: list[Any] = [part.block.columns[name] for part in parts]
        return np.concatenate(taken)

    numbers, address = column("block_number"), column("address")
    sizes = [part.block.rows for part in parts]
    protocols = np.repeat(np.array([part.protocol for part in parts], np.uint8), sizes)
    has_id: Mask = np.equal(protocols, _V4)
    pool_ids = np.concatenate([part.pool_ids for part in parts])
    leading = np.where(has_id, leading_of(pool_ids), leading_of(address))
    keys = key_of(_KEY_WORDS, address, pool_ids, protocols[:, None])
    groups = group_rows(numbers, leading, keys)
    amounts = np.concatenate([part.amounts for part in parts]).reshape(len(numbers), 4, -1)
    amounts = amounts[:, :, : used_words(amounts)]
    ordered = amounts.take(groups.order, axis=0).reshape(len(amounts), -1)
    moved = sum_words(ordered, groups.starts)
    sums, overflow = carry_over(moved.reshape(len(moved), 4, -1))
    first, log_index = groups.first, column("log_index")
    columns: dict[str, Column] = {
        "block_number": numbers.take(first),
        "block_hash": column("block_hash").take(first, axis=0),
        "block_time": column("block_time").take(first),
        "address": address.take(first, axis=0),
        "pool_id": pool_ids.take(first, axis=0),
        "protocol": protocols.take(first).view(np.int8),
        "trade_count": groups.sizes,
        "first_log_index": log_index.take(first),
        "last_log_index": log_index.take(groups.last),
        "amount0_in": sums[:, 0],
        "amount0_out": sums[:, 1],
        "amount1_in": sums[:, 2],
        "amount1_out": sums[:, 3],
        "amount_overflow": overflow.view(np.uint8),
        **_price_columns(groups, parts, np.equal(protocols, _V2)),
    }
    return ColumnBlock(POOL_TRADES.name, len(first), columns)


def _price_columns(groups: Groups, parts: Sequence[Trades], is_pair: Mask) -> dict[str, Column]:
    """The prices of each group at each moment; null where none of its swaps has one."""
    priced = np.concatenate([part.priced for part in parts]).take(groups.order)
    rows = groups.order[priced]
    before = np.zeros(len(priced) + 1, np.int64)
    np.cumsum(priced, out=before[1:])
    starts, ends = before[groups.starts], before[groups.ends]
    known = ends > starts
    starts, ends = starts[known], ends[known]
    over, under = (
        np.concatenate([part.prices[i] for part in parts]).take(rows, axis=0) for i in (0, 1)
    )
    high, low = find_extremes(over, under, starts, ends)
    at = np.stack([starts, high, low, ends - 1])
    pair = is_pair.take(groups.first)
    of_pair, of_pool = known & pair, known & ~pair
    shown = np.zeros((3, len(_MOMENTS), len(known), 32), np.uint8)
    for column, of, prices in ((0, of_pool, over), (1, of_pair, under), (2, of_pair, over)):
        shown[column][:, of] = prices[at[:, of[known]]]
    return {
        f"{moment}_{name}": Nullable(of, shown[column, place])
        for place, moment in enumerate(_MOMENTS)
        for column, (name, of) in enumerate(
            (("sqrt_price_x96", of_pool), ("reserve0", of_pair), ("reserve1", of_pair))
        )
    }


def _read_v2(protocol: int, swaps: ColumnBlock, tables: Mapping[str, ColumnBlock]) -> Trades:
    columns: dict[str, Any] = swaps.columns
    names = ("amount0_in", "amount0_out", "amount1_in", "amount1_out")
    amounts = [words_of(columns[name]) for name in names]
    reserve0, reserve1 = _reserves(columns, tables.get("uniswap_v2_syncs"))
    return Trades(
        protocol,
        swaps,
        _words(columns["address"]),
        np.concatenate(amounts, axis=1, dtype=np.uint64),
        (reserve1, reserve0),
        ~is_zero(reserve0),
    )


def _reserves(swaps: dict[str, Any], syncs: ColumnBlock | None) -> tuple[Bytes, Bytes]:
    """The reserves that each pair states in the log right before its swap; 0 where there is none.

    Source: Uniswap v2-core, UniswapV2Pair.swap: `_update` emits Sync, then comes Swap.
    """
    count = len(swaps["block_number"])
    none = np.zeros((2, count, 32), np.uint8)
    if syncs is None:
        return none[0], none[1]
    said: dict[str, Any] = syncs.columns
    base = min(swaps["block_number"][0], said["block_number"][0])
    wanted, places = (
        (of["block_number"] - base) << np.uint64(32) | of["log_index"] for of in (swaps, said)
    )
    at = np.minimum(places.searchsorted(wanted - np.uint64(1)), syncs.rows - 1)
    match = (places[at] == wanted - np.uint64(1)) & (swaps["log_index"] != 0)
    match &= (said["address"][at] == swaps["address"]).all(axis=1)
    for reserves, name in zip(none, ("reserve0", "reserve1"), strict=True):
        reserves[match] = said[name][at[match]]
    return none[0], none[1]


def _read_v3(protocol: int, swaps: ColumnBlock, _: Mapping[str, ColumnBlock]) -> Trades:
    """Amounts are changes of the pool's balances: what it received is positive."""
    columns: dict[str, Any] = swaps.columns
    received, paid = _split(columns)
    amounts = np.stack([received, paid], axis=2).reshape(swaps.rows, -1)
    roots = columns["sqrt_price_x96"]
    pool_ids = _words(columns["address"])
    return Trades(protocol, swaps, pool_ids, amounts, *_root_price(roots))


def _read_v4(protocol: int, swaps: ColumnBlock, _: Mapping[str, ColumnBlock]) -> Trades:
    """Amounts are changes of the caller's balances: what the pool received is negative."""
    columns: dict[str, Any] = swaps.columns
    paid, received = _split(columns)
    amounts = np.stack([received, paid], axis=2).reshape(swaps.rows, -1)
    return Trades(protocol, swaps, columns["id"], amounts, *_root_price(columns["sqrt_price_x96"]))


def _words(addresses: Bytes) -> Bytes:
    """Addresses as words of 32 bytes, as a topic holds them."""
    words = np.zeros((len(addresses), 32), np.uint8)
    words[:, 12:] = addresses
    return words


def _split(swaps: dict[str, Any]) -> tuple[Sums, Sums]:
    """uint64[n, 2, 8] each: the positive of both amounts, the negative ones' sizes; 0 elsewhere."""
    words = np.stack([words_of(swaps[name]) for name in ("amount0", "amount1")], axis=1)
    negative = words[:, :, -1:] >= _SIGN
    zero = np.uint32(0)
    risen = np.where(negative, zero, words).astype(np.uint64)
    fallen = np.where(negative, ~words, zero).astype(np.uint64)
    # -x is ~x + 1; the lowest word may pass 32 bits, which the sums take.
    fallen[:, :, :1] += negative
    return risen, fallen


def _root_price(roots: Bytes) -> tuple[tuple[Bytes, Bytes], Mask]:
    """Roots of prices compare as the prices do, over a denominator of one."""
    ones = np.zeros_like(roots)
    ones[:, 0] = 1
    return (roots, ones), np.ones(len(roots), np.bool_)


_Read = Callable[[int, ColumnBlock, Mapping[str, ColumnBlock]], Trades]
_SOURCES: tuple[tuple[str, _Read], ...] = (
    ("uniswap_v2_swaps", _read_v2),
    ("uniswap_v3_swaps", _read_v3),
    ("uniswap_v4_swaps", _read_v4),
)
"""By the number of the protocol: the table of its swaps, and what reads it."""
