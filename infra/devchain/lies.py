"""A true JSON result and a fault in, a result that proofs must refuse out."""

from collections.abc import Callable
from typing import Any

import msgspec

from infra.devchain.faults import Fault

Json = Any
Pick = Callable[[int], int]
_RECEIPTS = frozenset({"eth_getBlockReceipts", "eth_getTransactionReceipt", "eth_getLogs"})
_BLOCKS = frozenset(
    {
        "eth_getBlockByNumber",
        "eth_getBlockByHash",
        "eth_getHeaderByNumber",
        "eth_getHeaderByHash",
    }
)


def _flip(text: str) -> str:
    """Hex text with its last digit changed."""
    return text[:-1] + ("1" if text[-1] == "0" else "0")


def _log_lists(result: Json) -> list[list[Json]]:
    """The lists of logs in a result: its own, or its receipts', as far as they are not empty."""
    if isinstance(result, dict):
        lists = [result["logs"]]
    elif result and "logs" in result[0]:
        lists = [receipt["logs"] for receipt in result]
    else:
        lists = [result]
    return [logs for logs in lists if logs]


def _cut_logs(result: Json, logs_max: int) -> bool:
    """Leave only so many logs in each list, as nodes do that cut their answers in silence."""
    long = [logs for logs in _log_lists(result) if len(logs) > logs_max]
    for logs in long:
        del logs[logs_max:]
    return bool(long)


def _change_logs(result: Json, kind: str, pick: Pick) -> bool:
    lists = _log_lists(result)
    if not lists:
        return False
    logs = lists[pick(len(lists))]
    index = pick(len(logs))
    if kind == "omit_logs":
        del logs[index]
    elif kind == "duplicate_logs":
        logs.insert(index, dict(logs[index]))
    elif len(logs[index]["data"]) > 2:
        logs[index]["data"] = _flip(logs[index]["data"])
    else:
        logs[index]["address"] = _flip(logs[index]["address"])
    return True


def _change_transaction(result: Json, pick: Pick) -> bool:
    transactions = result["transactions"]
    if not transactions or isinstance(transactions[0], str):
        return False
    transaction = transactions[pick(len(transactions))]
    transaction["value"] = _flip(transaction["value"])
    return True


def _change_receipt(result: Json, pick: Pick) -> bool:
    receipts = result if isinstance(result, list) else [result]
    receipts = [receipt for receipt in receipts if "status" in receipt]
    if not receipts:
        return False
    receipt = receipts[pick(len(receipts))]
    receipt["status"] = "0x0" if receipt["status"] == "0x1" else "0x1"
    return True


def lie(method: str, result: bytes, fault: Fault, pick: Pick) -> bytes | None:
    """Change a result as a fault says.

    Parameters
    ----------
    method : str
    result : bytes
        JSON.
    fault : Fault
        One of the lies.
    pick : callable
        Gives a number below its argument.

    Returns
    -------
    bytes or None
        None where the result has nothing that this fault changes.
    """
    logs = fault.kind.endswith("_logs")
    if (logs or fault.kind == "alter_receipt") and method not in _RECEIPTS:
        return None
    if not (logs or fault.kind == "alter_receipt") and method not in _BLOCKS:
        return None
    parsed = msgspec.json.decode(result)
    if not parsed:
        return None
    if fault.kind == "cut_logs":
        changed = _cut_logs(parsed, fault.logs_max)
    elif logs:
        changed = _change_logs(parsed, fault.kind, pick)
    elif fault.kind == "alter_receipt":
        changed = _change_receipt(parsed, pick)
    elif fault.kind == "alter_transaction":
        changed = _change_transaction(parsed, pick)
    else:
        name = "hash" if fault.kind == "alter_hash" else fault.field
        parsed[name] = _flip(parsed[name])
        changed = True
    return msgspec.json.encode(parsed) if changed else None
