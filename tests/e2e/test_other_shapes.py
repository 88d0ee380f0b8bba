"""A chain of other headers, transactions and receipts is stored with `--verify off`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.replay_node import ReplayNode, serve_replay
from tests.e2e.running import Headrace
from tests.ingest.real_blocks import devchain, devchain_payload

CALLS = [{"to": "0x11"}]


def _of_another_shape(number: int) -> dict[str, Any]:
    """A block without a mix hash, with a batch of calls and a receipt of its own."""
    block, receipts = devchain_payload(number)
    del block["mixHash"]
    block["nonce"] = "0x0"
    if len(receipts) > 1:
        sent = block["transactions"][1]
        for name in ("value", "to", "input"):
            del sent[name]
        sent |= {"type": "0x76", "calls": CALLS}
        receipts[1]["type"] = "0x76"
    if receipts:
        logs = [log for receipt in receipts for log in receipt["logs"]]
        place = {"transactionHash": block["hash"], "transactionIndex": hex(len(receipts))}
        own = logs[0] | place | {"logIndex": hex(len(logs))}
        receipts.append(receipts[0] | place | {"logs": [own]})
    return {"block": block, "receipts": receipts}


def test_what_no_column_holds_is_kept_and_the_audit_agrees(tmp_path: Path) -> None:
    blocks = [_of_another_shape(number) for number in range(len(devchain().blocks()))]
    node = ReplayNode(31337, blocks, finalized=len(blocks) - 3)
    batches = sum(len(one["receipts"]) > 2 for one in blocks)
    own = sum(len(one["receipts"]) > 0 for one in blocks)
    with serve_replay(node) as url:
        headrace = Headrace(tmp_path, [url])
        headrace.run("--from", "0", "--to", str(len(blocks) - 1), "--verify", "off")
    headrace.audit()
    with headrace.stored() as database:
        [header] = database.execute(
            "SELECT countIf(mix_hash IS NULL AND nonce IS NULL), any(extra) FROM blocks"
        )
        assert (header[0], json.loads(header[1])) == (len(blocks), {"nonce": "0x0"})
        [batch] = database.execute(
            "SELECT count(), countIf(value_wei IS NULL AND input IS NULL), any(extra) "
            "FROM transactions WHERE type = 0x76"
        )
        assert (batch[0], batch[1], json.loads(batch[2])) == (batches, batches, {"calls": CALLS})
        of_blocks = "SELECT count() FROM logs WHERE transaction_index IS NULL"
        assert database.value(of_blocks) == own
        assert database.value(f"{of_blocks} AND transaction_hash = block_hash") == own
