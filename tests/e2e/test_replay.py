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

import pytest
import rlp

from infra.clickhouse.server import find_running
from infra.exit_codes import ExitCode
from ingest.keccak import keccak
from schemas.errors import HeadraceError
from schemas.tables import Table
from sinks.connection import Connection
from tests.e2e.replay_node import ReplayNode, read_blocks, serve_replay
from tests.e2e.running import PATIENCE_SECONDS, Headrace, numbers, tables, until
from tests.ingest.consensus import block_json
from tests.stored_truth import stored_rows

CHAIN_ID = 3_503_995_874_084_926
"""Of the execution-apis chain."""
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
        said = headrace.run("--chain", "ethereum", "--from", str(FIRST), "--to", str(FIRST + 15))
        assert "day(s) old" in said, "the newest block is years old"
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
        headrace.audit()
        with headrace.stored("ethereum") as connection:
            check(connection, fork, folder)
            assert numbers(connection, "SELECT depth_blocks FROM reorgs") == [6]
            assert numbers(connection, "SELECT ancestor_number FROM reorgs") == [FORK - 1]


def execution_chain(folder: Path) -> list[Any]:
    """The execution-apis chain from genesis on; `receipts` is None where the folder has none.

    Its blocks are RLP, without senders; those come from the receipts where there are any.
    """
    raw = (folder / "chain.rlp").read_bytes()
    blocks = [_result(folder / "eth_getBlockByNumber" / "get-genesis.io")]
    while raw:
        decoded, _, size = rlp.codec.consume_item(raw, 0)
        blocks.append(block_json(decoded))
        raw = raw[size:]
    receipts: dict[int, list[Any]] = {
        at: [] for at, block in enumerate(blocks) if not block["transactions"]
    }
    receipts[1] = _result(folder / "eth_getBlockReceipts" / "get-block-receipts-n.io")
    receipts[len(blocks) - 1] = _result(
        folder / "eth_getBlockReceipts" / "get-block-receipts-latest.io"
    )
    for number, found in receipts.items():
        for transaction, receipt in zip(blocks[number]["transactions"], found, strict=True):
            transaction["from"] = receipt["from"]
    return [{"block": block, "receipts": receipts.get(at)} for at, block in enumerate(blocks)]


def _result(path: Path) -> Any:
    """The answer of a request and response pair."""
    ((_, response),) = _pairs(path)
    return response["result"]


def _pairs(path: Path) -> list[tuple[Any, Any]]:
    """The pairs of one file."""
    lines = [line for line in path.read_text().splitlines() if line[:3] in (">> ", "<< ")]
    said = [json.loads(line[3:]) for line in lines]
    return list(zip(said[::2], said[1::2], strict=True))


def absent_address(blocks: Sequence[Any]) -> str:
    """An address that no block's bloom has."""
    blooms = [int(one["block"]["logsBloom"], 16) for one in blocks]
    for number in range(1 << 16):
        address = number.to_bytes(20, "big")
        digest = keccak(address)
        bits = [int.from_bytes(digest[at : at + 2], "big") & 2047 for at in (0, 2, 4)]
        if not any(all(bloom >> bit & 1 for bit in bits) for bloom in blooms):
            return f"0x{address.hex()}"
    raise AssertionError("every address may be in a bloom")


@pytest.mark.parametrize("number", [1, 54])
def test_execution_apis_blocks_with_receipts(chaindata: Path, tmp_path: Path, number: int) -> None:
    """The two blocks with transactions whose receipts the folder has, fully proven.

    The chain's other blocks have transactions without receipts: what they hold cannot be indexed
    by the default source. See the next test for their headers.
    """
    blocks = execution_chain(chaindata / "execution-apis")
    node = ReplayNode(CHAIN_ID, blocks, finalized=54)
    with serve_replay(node) as url:
        headrace = Headrace(tmp_path, [url], grid=(1, 20))
        words = ("--from", str(number), "--to", str(number), "--verify", "full")
        headrace.run(*words)
        headrace.audit()
        with headrace.stored() as connection:
            one = blocks[number]
            shown = connection.execute("SELECT block_hash, verification FROM blocks", as_bytes=True)
            assert shown == [(value_of(one["block"]["hash"]), "full")]
            declared = {table.name: table for table in tables()}
            assert {
                key: row["address"]
                for key, row in stored_rows(connection, declared["logs"]).items()
            } == {key: row[2] for key, row in log_rows([one]).items()}
            assert connection.execute("SELECT count(), sum(gas_used) FROM transactions") == [
                (
                    len(one["receipts"]),
                    sum(int(receipt["gasUsed"], 16) for receipt in one["receipts"]),
                )
            ]


def test_execution_apis_headers_of_every_fork(chaindata: Path, tmp_path: Path) -> None:
    """Every header from genesis to BPO2, by the source `logs` for a contract without any.

    That there are none is proven by each block's bloom.
    """
    blocks = execution_chain(chaindata / "execution-apis")
    settings = f'source = "logs"\n[logs]\naddresses = ["{absent_address(blocks)}"]\n'
    node = ReplayNode(CHAIN_ID, blocks, finalized=47)
    with serve_replay(node) as url:
        headrace = Headrace(tmp_path, [url], settings)
        headrace.run("--from", "0", "--to", "54")
        with headrace.stored() as connection:
            shown = connection.execute(
                "SELECT block_hash, toUnixTimestamp(block_time) FROM blocks ORDER BY block_number",
                as_bytes=True,
            )
            assert shown == [
                (value_of(one["block"]["hash"]), int(one["block"]["timestamp"], 16))
                for one in blocks
            ]
            assert connection.execute("SELECT count() FROM logs") == [(0,)]
