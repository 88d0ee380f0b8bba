"""Chain data on disk and devchain blocks in, JSON payloads for the tests out."""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.devchain.chain import Chain
from infra.devchain.sealing import Spec
from ingest.wire import Block, Receipt, decode_block, decode_receipts

ROOT = Path(__file__).parents[2]
CHAINDATA = Path(os.environ.get("HEADRACE_CHAINDATA") or ROOT.parent / "shared" / "chaindata")
MISSING = f"no chain data in {CHAINDATA} (HEADRACE_CHAINDATA names another folder)"

needs_chaindata = pytest.mark.skipif(not (CHAINDATA / "README.md").is_file(), reason=MISSING)


@dataclass(frozen=True, slots=True)
class Expected:
    """A row of the chain data's table."""

    chain: str
    number: int
    transactions: int
    logs: int | None
    header: bool
    transactions_root: bool
    receipts_root: bool | None
    withdrawals_root: bool | None

    @property
    def id(self) -> str:
        return f"{self.chain}-{self.number}"


@cache
def expected_blocks() -> list[Expected]:
    """The table of the chain data's README; empty where there is no chain data."""
    readme = CHAINDATA / "README.md"
    if not readme.is_file():
        return []
    row = re.compile(
        r"\| (\w+) \| (\d+) \| 0x\w+… \| (\d+) \| (\d+|-) \| (\S+) / (\S+) / (\S+) / (\S+) \|"
    )
    known = {"ok": True, "NO": False, "-": None}
    found = []
    for match in row.finditer(readme.read_text("utf-8")):
        chain, number, transactions, logs = match.groups()[:4]
        header, tx_root, receipts, withdrawals = (known[text] for text in match.groups()[4:])
        assert header is not None
        assert tx_root is not None
        found.append(
            Expected(
                chain,
                int(number),
                int(transactions),
                None if logs == "-" else int(logs),
                header,
                tx_root,
                receipts,
                withdrawals,
            )
        )
    return found


@cache
def _text(chain: str, number: int) -> str:
    path = CHAINDATA / "blocks" / chain / f"{number}.json.gz"
    return gzip.decompress(path.read_bytes()).decode()


def load_payload(chain: str, number: int) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """A block's JSON and its receipts' JSON, freshly parsed, so that tests may damage them."""
    payload = json.loads(_text(chain, number))
    return payload["block"], payload["receipts"]


@cache
def devchain(blocks: int = 12) -> Chain:
    """A synthetic chain with true hashes and roots."""
    chain = Chain(Spec(seed=11))
    chain.mine(blocks)
    return chain


def devchain_payload(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A devchain block's JSON and its receipts' JSON."""
    rendered = devchain().view.at(number)
    assert rendered is not None
    return json.loads(rendered.full), json.loads(rendered.receipts)


@cache
def busy_block() -> int:
    """Number of a devchain block that has withdrawals, and logs with topics in several receipts."""
    for number in range(1, len(devchain().blocks())):
        block, receipts = devchain_payload(number)
        kinds = {tx["type"] for tx in block["transactions"]}
        full = [receipt for receipt in receipts if len(receipt["logs"]) > 1]
        if len(full) > 2 and block.get("withdrawals") and "0x0" in kinds:
            return number
    raise AssertionError("the devchain has no busy block")


def parsed(block: dict[str, Any]) -> Block:
    """The block as ingest decodes it."""
    decoded = decode_block(json.dumps(block).encode())
    assert decoded is not None
    return decoded


def parsed_receipts(receipts: list[dict[str, Any]]) -> list[Receipt]:
    """The receipts as ingest decodes them."""
    decoded = decode_receipts(json.dumps(receipts).encode())
    assert decoded is not None
    return decoded


def io_pairs(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Request and response pairs of an execution-apis folder."""
    pairs = []
    for path in sorted(folder.glob("*.io")):
        request = None
        for line in path.read_text("utf-8").splitlines():
            if line.startswith(">> "):
                request = json.loads(line[3:])
            elif line.startswith("<< ") and request is not None:
                pairs.append((request, json.loads(line[3:])))
    return pairs
