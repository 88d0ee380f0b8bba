"""Tables of aggregates in, SQL out: where they differ from what the visible events add up to.

What the aggregator does with arrays ClickHouse does here by itself, from the events' views.
"""

from __future__ import annotations

from infra.audit_checks import Invariant
from processors.aggregate import aggregate_version
from schemas.tables import AGGREGATE_TABLES, POOL_TRADES, TOKEN_FLOWS, Table
from sinks.connection import Connection

STATEMENT = "aggregates are what the visible events of their blocks add up to"
FINDINGS_MAX = 20

_BETWEEN = "block_number BETWEEN {from_block} AND {to_block}"
_ZERO = "toFixedString('', 20)"
_PLACE = "block_number, block_hash, block_time AS time, address"
_WORD = "toFixedString(concat(unhex(repeat('00', 12)), address), 32)"
_HALF = "toUInt256('340282366920938463463374607431768211455')"
"""2^128 - 1."""


def same_aggregator(connection: Connection) -> bool:
    """Whether every stored aggregate was made by this aggregator, of stored events.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    rows = connection.execute("SELECT DISTINCT stream, content_version FROM ledger")
    stored = {version for stream, version in rows if stream == "aggregates"}
    return stored <= {aggregate_version(version) for stream, version in rows if stream == "events"}


def aggregate_invariants() -> tuple[Invariant, ...]:
    """I8 of the aggregates: each table against the sums of the events that it is made of."""
    made = {TOKEN_FLOWS.name: _token_flows(), POOL_TRADES.name: _pool_trades()}
    return tuple(
        Invariant("I8", STATEMENT, _compared(table, made[table.name])) for table in AGGREGATE_TABLES
    )


def _compared(table: Table, due: str) -> str:
    """What a table says and what is due, side by side, where they differ."""
    identity = ", ".join(table.identity)
    values = [spec.name for spec in table.columns if spec.name not in table.identity]
    texts = ", ".join(f"ifNull(toString({name}), 'NULL')" for name in values)
    names = ", ".join(f"'{name}'" for name in values)
    numbered = ", ".join(
        f"CAST({spec.name}, 'Int8') AS {spec.name}" if spec.kind_text.startswith("enum8") else name
        for name in table.identity
        for spec in (table.column(name),)
    )
    key = [name for name in table.identity if not name.startswith("block_")]
    of = ", ".join(
        f"'{', ' * (at > 0)}{name} ', {_shown(table, name)}" for at, name in enumerate(key)
    )
    return f"""
        SELECT block_number, concat('{table.name}: the row of ', {of}, multiIf(
            stored = 0, ' is missing',
            stored > 1, concat(' is there ', toString(stored), ' times'),
            events = 0, ' is there, but no event of it',
            concat(' differs from its events in ', arrayStringConcat(
                arrayFilter((name, ours, theirs) -> ours != theirs, [{names}], said, due), ', '))))
        FROM (
            SELECT {identity}, countIf(side = 1) AS stored, countIf(side = 0) AS events,
                anyIf(texts, side = 1) AS said, anyIf(texts, side = 0) AS due
            FROM (
                SELECT {numbered}, [{texts}] AS texts, 1 AS side FROM {table.name} WHERE {_BETWEEN}
                UNION ALL SELECT {identity}, [{texts}] AS texts, 0 AS side FROM ({due})
            )
            GROUP BY {identity} HAVING stored != 1 OR events != 1 OR said != due
        )
        ORDER BY block_number LIMIT {FINDINGS_MAX}"""


def _shown(table: Table, name: str) -> str:
    is_bytes = "bytes" in table.column(name).kind_text
    return f"hex0x({name})" if is_bytes else f"toString({name})"


def _beyond(column: str) -> str:
    """Whether the sum of a UInt256 column is 2^256 or more: by the sums of its halves."""
    low, high = f"sum(bitAnd({column}, {_HALF}))", f"sum(bitShiftRight({column}, 128))"
    return f"bitShiftRight({high} + bitShiftRight({low}, 128), 128) != 0"


def _token_flows() -> str:
    amounts = {
        "erc20_transfers": "value",
        "erc721_transfers": "toUInt256(1)",
        "erc1155_transfers": "value",
    }
    transfers = " UNION ALL ".join(
        f"SELECT {_PLACE}, toInt8({standard}) AS standard, from_address, to_address, "
        f"{amount} AS amount FROM {table} WHERE {_BETWEEN}"
        for standard, (table, amount) in enumerate(amounts.items())
    )
    return f"""
        SELECT block_number, block_hash, any(time) AS block_time, address, standard,
            count() AS transfer_count, countIf(from_address = {_ZERO}) AS mint_count,
            countIf(to_address = {_ZERO}) AS burn_count, sum(amount) AS value,
            sumIf(amount, from_address = {_ZERO}) AS minted_value,
            sumIf(amount, to_address = {_ZERO}) AS burned_value,
            CAST({_beyond("amount")} AS Bool) AS value_overflow
        FROM ({transfers}) GROUP BY block_number, block_hash, address, standard"""


def _pool_trades() -> str:
    moved = ("amount0_in", "amount0_out", "amount1_in", "amount1_out")
    sums = ", ".join(f"sum(moved.{at}) AS {name}" for at, name in enumerate(moved, 1))
    beyond = " OR ".join(_beyond(f"moved.{at}") for at in range(1, len(moved) + 1))
    picked = {
        "open": "argMinIf(state, log_index, priced)",
        "high": "argMaxIf(state, (price.1, price.2, -toInt64(log_index)), priced)",
        "low": "argMinIf(state, (price.1, price.2, toInt64(log_index)), priced)",
        "close": "argMaxIf(state, log_index, priced)",
    }
    prices = ", ".join(
        f"tupleElement({pick}, {at}) AS {moment}_{name}"
        for moment, pick in picked.items()
        for at, name in enumerate(("sqrt_price_x96", "reserve0", "reserve1"), 1)
    )
    return f"""
        SELECT block_number, block_hash, any(time) AS block_time, address, pool_id, protocol,
            count() AS trade_count, min(log_index) AS first_log_index,
            max(log_index) AS last_log_index, {sums},
            CAST({beyond} AS Bool) AS amount_overflow, {prices}
        FROM ({_swaps_v2()} UNION ALL {_swaps_v3()} UNION ALL {_swaps_v4()})
        GROUP BY block_number, block_hash, address, pool_id, protocol"""


def _swaps_v2() -> str:
    """V2's swaps with the reserves of the Sync right before; their price has 224 binary places.

    Two different fractions of 112-bit numbers differ there.
    """
    known = "greatest(reserve0, toUInt256(1))"
    whole = f"intDiv(bitShiftLeft(reserve1, 112), {known})"
    rest = f"intDiv(bitShiftLeft(bitShiftLeft(reserve1, 112) % {known}, 112), {known})"
    return f"""
        SELECT block_number, block_hash, time, address,
            {_WORD} AS pool_id, toInt8(0) AS protocol, log_index,
            (amount0_in, amount0_out, amount1_in, amount1_out) AS moved, reserve0 != 0 AS priced,
            (CAST(NULL AS Nullable(UInt256)), toNullable(reserve0), toNullable(reserve1)) AS state,
            ({whole}, {rest}) AS price
        FROM (SELECT {_PLACE}, log_index, amount0_in, amount0_out, amount1_in, amount1_out
              FROM uniswap_v2_swaps WHERE {_BETWEEN}) AS swaps
        LEFT JOIN (SELECT block_number, address, log_index + 1 AS log_index, reserve0, reserve1
                   FROM uniswap_v2_syncs WHERE {_BETWEEN}) AS syncs
        USING (block_number, address, log_index)"""


def _swaps_v3() -> str:
    return _swaps_by_root(1, "uniswap_v3_swaps", _WORD, "")


def _swaps_v4() -> str:
    return _swaps_by_root(2, "uniswap_v4_swaps", "id", "-")


def _swaps_by_root(protocol: int, table: str, pool_id: str, sign: str) -> str:
    moved = ", ".join(
        f"if({sign}{amount} > 0, toUInt256({sign}{amount}), toUInt256(0)), "
        f"if({sign}{amount} < 0, toUInt256(-({sign}{amount})), toUInt256(0))"
        for amount in ("amount0", "amount1")
    )
    unknown = "CAST(NULL AS Nullable(UInt256))"
    return f"""
        SELECT {_PLACE}, {pool_id} AS pool_id, toInt8({protocol}) AS protocol, log_index,
            ({moved}) AS moved, true AS priced,
            (toNullable(sqrt_price_x96), {unknown}, {unknown}) AS state,
            (sqrt_price_x96, toUInt256(0)) AS price
        FROM {table} WHERE {_BETWEEN}"""
