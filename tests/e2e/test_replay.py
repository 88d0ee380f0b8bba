"""Real transactions, logs and receipts served by a replay node: backfill, head, a fork as a reorg.

The blocks are Ethereum's, linked anew into one chain with a fork; what they decode to was worked
out by eth-abi, elsewhere. The events are looked up by the hash of the original block.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.clickhouse.server import find_running
from infra.exit_codes import ExitCode
from schemas.errors import HeadraceError
from schemas.tables import Table
from sinks.connection import Connection
from tests.e2e.replay_node import ReplayNode, read_blocks, serve_replay
from tests.e2e.running import PATIENCE_SECONDS, Headrace, numbers, tables, until
from tests.stored_truth import stored_rows

FIRST, FORK = 30_000_000, 30_000_010
KINDS = {
    "erc20": ("erc20_transfers", {"from": "from_address", "to": "to_address"}),
    "erc721": (
        "erc721_transfers",
        {"from": "from_address", "to": "to_address", "tokenId": "token_id"},
    ),
    "erc1155_single": ("erc1155_transfers", {"from": "from_address", "to": "to_address"}),
    "v2swap": (
        "uniswap_v2_swaps",
        {
            "to": "to_address",
            "amount0In": "amount0_in",
            "amount1In": "amount1_in",
            "amount0Out": "amount0_out",
            "amount1Out": "amount1_out",
        },
    ),
    "v3swap": ("uniswap_v3_swaps", {"sqrtPriceX96": "sqrt_price_x96"}),
    "v4swap": ("uniswap_v4_swaps", {"sqrtPriceX96": "sqrt_price_x96"}),
}
"""Kinds of the expectations: their table, and parameters that our columns spell otherwise."""
FOREIGN = {"tx", "logIndex", "kind", "ids", "values"}


def value_of(text: str) -> Any:
    """An expected value as a column's value."""
    return bytes.fromhex(text[2:]) if text.startswith("0x") else int(text)


def expected_rows(
    blocks: Sequence[Any], folder: Path
) -> dict[str, dict[tuple[int, int, int], dict[str, Any]]]:
    """By table, then block number, log index and sub-index: the expected values of columns."""
    by_hash = {
        told["hash"]: told["decoded"]
        for told in (json.loads(path.read_text()) for path in folder.glob("*.json"))
    }
    rows: dict[str, dict[tuple[int, int, int], dict[str, Any]]] = {
        table: {} for table, _ in KINDS.values()
    }
    for one in blocks:
        number = int(one["block"]["number"], 16)
        for event in by_hash[one["orig"]]:
            if event["kind"] not in KINDS:
                continue
            table, spelt = KINDS[event["kind"]]
            values = {
                spelt.get(name, name): value_of(value)
                for name, value in event.items()
                if name not in FOREIGN
            }
            values["transaction_hash"] = value_of(event["tx"])
            for at, token in enumerate(event.get("ids", [])):
                values |= {"id": int(token), "value": int(event["values"][at])}
                rows[table][number, event["logIndex"], at] = dict(values)
            if "ids" not in event:
                rows[table][number, event["logIndex"], 0] = values
    return rows


def log_rows(blocks: Sequence[Any]) -> dict[tuple[int, int], tuple[Any, ...]]:
    """By block number and log index: what identifies and fills a log."""
    return {
        (int(log["blockNumber"], 16), int(log["logIndex"], 16)): (
            *(value_of(log[name]) for name in ("blockHash", "transactionHash", "address")),
            tuple(value_of(topic) for topic in log["topics"]),
            bytes.fromhex(log["data"][2:]),
        )
        for one in blocks
        for receipt in one["receipts"]
        for log in receipt["logs"]
    }


def check(connection: Connection, blocks: Sequence[Any], folder: Path) -> None:
    """Blocks, transactions, logs, transfers and swaps are those of a chain."""
    declared = {table.name: table for table in tables()}
    shown = connection.execute(
        "SELECT block_number, block_hash FROM blocks ORDER BY 1", as_bytes=True
    )
    assert [row[1] for row in shown] == [value_of(one["block"]["hash"]) for one in blocks]
    transactions = connection.execute(
        "SELECT transaction_hash FROM transactions ORDER BY block_number, transaction_index",
        as_bytes=True,
    )
    assert [row[0] for row in transactions] == [
        value_of(transaction["hash"])
        for one in blocks
        for transaction in one["block"]["transactions"]
    ]
    found = {
        key: (
            *(row[name] for name in ("block_hash", "transaction_hash", "address")),
            tuple(t for t in (row[f"topic{n}"] for n in range(4)) if t is not None),
            row["data"],
        )
        for key, row in stored_rows(connection, declared["logs"]).items()
    }
    assert found == log_rows(blocks)
    for table, rows in expected_rows(blocks, folder).items():
        _check_events(connection, declared[table], rows)


def _check_events(
    connection: Connection, table: Table, rows: dict[tuple[int, int, int], dict[str, Any]]
) -> None:
    stored = {
        (row["block_number"], row["log_index"], row["sub_index"]): row
        for row in stored_rows(connection, table).values()
    }
    assert rows, table.name
    assert stored.keys() == rows.keys(), table.name
    for key, row in rows.items():
        assert {name: stored[key][name] for name in row} == row, (table.name, key)


def head_hash(headrace: Headrace) -> bytes:
    """The hash of the visible head of a run that goes on."""
    running = find_running(headrace.data)
    if running is None:
        return b""
    try:
        with Connection(running.endpoint(database="ethereum")) as connection:
            sql = "SELECT block_hash FROM blocks ORDER BY block_number DESC LIMIT 1"
            found = connection.execute(sql, as_bytes=True)
    except HeadraceError:
        return b""
    return bytes(found[0][0]) if found else b""


def test_real_blocks_and_their_fork(chaindata: Path, tmp_path: Path) -> None:
    chain = read_blocks(chaindata / "rechained" / "chainA.jsonl.gz")
    fork = read_blocks(chaindata / "rechained" / "chainB_fork.jsonl.gz")
    folder = chaindata / "expected" / "mainnet"
    node = ReplayNode(1, chain, finalized=FORK - 1)
    with serve_replay(node) as url:
        headrace = Headrace(tmp_path, [url])
        headrace.run("--chain", "ethereum", "--from", str(FIRST), "--to", str(FIRST + 15))
        with headrace.stored("ethereum") as connection:
            check(connection, chain, folder)
        process = headrace.start("--chain", "ethereum")
        try:
            until(lambda: head_hash(headrace) == value_of(chain[-1]["block"]["hash"]), "no head")
            node.show(fork)
            wanted = value_of(fork[-1]["block"]["hash"])
            until(lambda: head_hash(headrace) == wanted, headrace.said())
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted, headrace.said()
        finally:
            headrace.end(process)
        with headrace.stored("ethereum") as connection:
            check(connection, fork, folder)
            assert numbers(connection, "SELECT depth_blocks FROM reorgs") == [6]
            assert numbers(connection, "SELECT ancestor_number FROM reorgs") == [FORK - 1]
