"""Transfer events in, the rows of ``token_flows`` out: one a block, token and standard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregate_groups import (
    NUMBER_WORDS,
    Words,
    carry_over,
    group_rows,
    is_zero,
    key_of,
    leading_of,
    sum_picked,
    sum_words,
    used_words,
    words_of,
)
from schemas.columns import Column, ColumnBlock
from schemas.tables import TOKEN_FLOWS

_SOURCES = (("erc20_transfers", "value"), ("erc721_transfers", ""), ("erc1155_transfers", "value"))
"""By the number of the standard: the table of its transfers, and the column of their amount."""
_KEY_WORDS = 3
"""Address and standard."""


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
    groups = group_rows(
        numbers, leading_of(address), key_of(_KEY_WORDS, address, standards[:, None])
    )
    amounts = np.concatenate([_amounts(block, name) for _, block, name in parts])
    ordered = amounts.take(groups.order, axis=0)[:, : used_words(amounts)].astype(np.uint64)
    minted, mints = sum_picked(ordered, is_zero(column("from_address")).take(groups.order), groups)
    burned, burns = sum_picked(ordered, is_zero(column("to_address")).take(groups.order), groups)
    moved = sum_words(ordered, groups.starts)
    sums, overflow = carry_over(np.stack([moved, minted, burned], axis=1))
    first = groups.first
    columns: dict[str, Column] = {
        "block_number": numbers.take(first),
        "block_hash": column("block_hash").take(first, axis=0),
        "block_time": column("block_time").take(first),
        "address": address.take(first, axis=0),
        "standard": standards.take(first).view(np.int8),
        "transfer_count": groups.sizes,
        "mint_count": mints,
        "burn_count": burns,
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
