"""Transfer events in, the rows of ``token_flows`` out: one a block, token and standard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregate_groups import (
    NUMBER_WORDS,
    Words,
    any_bits,
    group_rows,
    leading_of,
    sum_groups,
    words_of,
)
from schemas.columns import Column, ColumnBlock
from schemas.tables import TOKEN_FLOWS

_SOURCES = (("erc20_transfers", "value"), ("erc721_transfers", ""), ("erc1155_transfers", "value"))
"""By the number of the standard: the table of its transfers, and the column of their amount."""


def token_flows(tables: Mapping[str, ColumnBlock]) -> ColumnBlock:
    """Add up the transfers of each block, token and standard.

    Parameters
    ----------
    tables
        The decoded events by table; those without rows may be missing.
    """
    parts = [
        (standard, tables[table], amount)
        for standard, (table, amount) in enumerate(_SOURCES)
        if table in tables
    ]
    if not parts:
        return ColumnBlock(TOKEN_FLOWS.name, 0, {})

    def column(name: str) -> npt.NDArray[Any]:
        taken: list[Any] = [block.columns[name] for _, block, _ in parts]
        return np.concatenate(taken) if len(taken) > 1 else taken[0]

    numbers, address = column("block_number"), column("address")
    standards = np.repeat(
        np.array([standard for standard, _, _ in parts], np.uint8),
        [block.rows for _, block, _ in parts],
    )
    keys = np.concatenate([words_of(address), standards[:, None]], axis=1, dtype=np.uint32)
    groups = group_rows(numbers, leading_of(address), keys)
    minted = ~any_bits(words_of(column("from_address")))
    burned = ~any_bits(words_of(column("to_address")))
    amounts = np.concatenate([_amounts(block, name) for _, block, name in parts])
    masks = np.stack([np.ones(len(minted), np.bool_), minted, burned], axis=1)
    sums, overflow = sum_groups(groups, _spread(amounts, masks))
    counts = np.add.reduceat(masks.take(groups.order, axis=0), groups.starts, dtype=np.uint32)
    first = groups.first
    columns: dict[str, Column] = {
        "block_number": numbers.take(first),
        "block_hash": column("block_hash").take(first, axis=0),
        "block_time": column("block_time").take(first),
        "address": address.take(first, axis=0),
        "standard": standards.take(first).view(np.int8),
        "transfer_count": counts[:, 0],
        "mint_count": counts[:, 1],
        "burn_count": counts[:, 2],
        "value": sums[:, 0],
        "minted_value": sums[:, 1],
        "burned_value": sums[:, 2],
        "value_overflow": overflow.view(np.uint8),
    }
    return ColumnBlock(TOKEN_FLOWS.name, len(first), columns)


def _amounts(block: ColumnBlock, column: str) -> Words:
    """uint32[n, 8]: how many tokens each transfer moved; without a column, one."""
    if column:
        values: Any = block.columns[column]
        return words_of(values)
    ones = np.zeros((block.rows, NUMBER_WORDS), np.uint32)
    ones[:, 0] = 1
    return ones


def _spread(amounts: Words, masks: npt.NDArray[np.bool_]) -> Words:
    """uint32[n, 24]: each amount, again if minted, again if burned; 0 where not."""
    spread = amounts[:, None, :] * masks[:, :, None]
    return spread.reshape(len(amounts), -1)
