"""One JSON-RPC call in, the bytes of its result or a refusal out.

Pure of network: the server reads requests, this answers them for one endpoint.

Source: ethereum/execution-apis; error codes and texts as go-ethereum's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.devchain.calls import Reverted, call_contract
from infra.devchain.faults import (
    ANSWER_KINDS,
    LIE_KINDS,
    STANDING_KINDS,
    Fault,
    FaultBoard,
)
from infra.devchain.lies import lie
from infra.devchain.logfilter import LogFilter
from infra.devchain.served import BlockJson, ChainView, Served

CLIENT_VERSION = "headrace-devchain/1 (synthetic)"
INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
LIMIT_EXCEEDED = -32005
SERVER_ERROR = -32000
REVERTED = 3
PRUNED = 4444
NULL = b"null"
Params = list[Any]


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint refuses."""

    logs_range_blocks_max: int | None = None
    """Blocks that one eth_getLogs may span; None sets no limit, as go-ethereum does."""
    logs_results_max: int | None = None
    """Logs that one eth_getLogs may answer."""
    batch_calls_max: int = 1000
    """Calls in one batch."""


@dataclass(eq=False, slots=True)
class Endpoint:
    """One node's answers: a chain seen through faults and limits."""

    chain: Served
    faults: FaultBoard = field(default_factory=FaultBoard)
    limits: Limits = field(default_factory=Limits)
    _frozen: dict[int, ChainView] = field(default_factory=dict)

    def view(self, now: ChainView | None = None) -> ChainView:
        """The chain as this endpoint believes it to be, now or when it was as given."""
        view = self.chain.view if now is None else now
        if not self.faults.any_active():
            return view
        for kind in STANDING_KINDS:
            if standing := self.faults.standing(kind):
                number, fault = standing
                if number not in self._frozen:
                    self._frozen[number] = _standing_view(fault, view)
                return self._frozen[number]
        if lagging := self.faults.standing("lagging_head"):
            return view.behind(lagging[1].blocks)
        return view

    def begin_view(self, number: int, fault: Fault) -> None:
        """Remember what the endpoint shows from now on, for a fault after which it stands still."""
        if fault.kind in STANDING_KINDS:
            self._frozen.setdefault(number, _standing_view(fault, self.chain.view))

    def answer(self, method: str, params: Params) -> bytes:
        """Answer one call.

        Returns
        -------
        bytes
            The result's JSON.

        Raises
        ------
        Refusal
            The call's error.
        """
        answering = METHODS.get(method)
        if answering is None:
            raise Refusal(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        if not self.faults.any_active():
            return self._answer(answering, params)
        if struck := self.faults.draw(ANSWER_KINDS, (method,)):
            replaced = self._instead(method, params, *struck)
            if replaced is not None:
                return replaced
        result = self._answer(answering, params)
        if struck := self.faults.draw(LIE_KINDS, (method,)):
            changed = lie(method, result, struck[1], self.faults.pick)
            if changed is not None:
                return changed
            self.faults.give_back(struck[0])
        return result

    def _answer(self, answering: Answering, params: Params) -> bytes:
        try:
            return answering(self, params)
        except (ValueError, TypeError, LookupError, AttributeError) as wrong:
            raise Refusal(INVALID_PARAMS, f"invalid argument: {wrong}") from wrong

    def _instead(self, method: str, params: Params, number: int, fault: Fault) -> bytes | None:
        """What a fault answers instead; None where it does not concern the call."""
        blocks = method.startswith(("eth_getBlockBy", "eth_getHeaderBy"))
        receipts = method in ("eth_getBlockReceipts", "eth_getTransactionReceipt")
        if fault.kind == "rpc_error":
            raise Refusal(fault.code, fault.message)
        if fault.kind == "no_finality_tags" and params and params[0] in ("safe", "finalized"):
            raise Refusal(-39001, "Unknown block")
        if fault.kind == "pruned" and self._asks_below(method, params, fault.blocks):
            raise Refusal(PRUNED, "pruned history unavailable")
        if fault.kind == "null_block" and blocks:
            return NULL
        if fault.kind == "null_receipts" and receipts:
            return NULL
        if fault.kind == "empty_logs" and method == "eth_getLogs":
            return b"[]"
        if fault.kind == "other_receipts" and method == "eth_getBlockReceipts":
            block = find_block(self.view(), params[0])
            other = self.view().at(max(0, block.number - fault.blocks)) if block else None
            if other is not None:
                return other.receipts
        self.faults.give_back(number)
        return None

    def _asks_below(self, method: str, params: Params, kept: int) -> bool:
        """Whether a call reaches below the last blocks of the chain."""
        view = self.view()
        if method == "eth_getLogs":
            return height(view, params[0].get("fromBlock") or "latest") <= view.head - kept
        if method in ("eth_getTransactionByHash", "eth_getTransactionReceipt"):
            found = view.transaction(parse_hash(params[0]))
            return found is not None and found[0].number <= view.head - kept
        if not method.startswith(("eth_getBlock", "eth_getHeader")):
            return False
        block = find_block(view, params[0])
        return block is not None and block.number <= view.head - kept


def _standing_view(fault: Fault, view: ChainView) -> ChainView:
    """What an endpoint shows while such a fault lasts."""
    if fault.kind == "back":
        return view.behind(fault.blocks)
    return view.another(fault.blocks) if fault.kind == "reset" else view


Answering = Callable[[Endpoint, Params], bytes]


def parse_quantity(text: object) -> int:
    """A hex quantity as an integer."""
    if not isinstance(text, str) or not text.startswith("0x") or len(text) == 2:
        raise ValueError(f"{text!r} is not a hex quantity")
    return int(text, 16)


def parse_hash(text: object) -> bytes:
    """A 32-byte hash."""
    if not isinstance(text, str) or not text.startswith("0x"):
        raise ValueError("hex string without 0x prefix")
    parsed = bytes.fromhex(text[2:])
    if len(parsed) != 32:
        raise ValueError(f"hex string has length {2 * len(parsed)}, want 64 for common.Hash")
    return parsed


def height(view: ChainView, tag: object) -> int:
    """The block number that a tag or quantity means."""
    if tag in ("latest", "pending"):
        return view.head
    if tag == "safe":
        return view.safe
    if tag == "finalized":
        return view.finalized
    if tag == "earliest":
        return 0
    return parse_quantity(tag)


def find_block(view: ChainView, reference: object) -> BlockJson | None:
    """A block by tag, quantity, hash, or the object of EIP-1898."""
    if isinstance(reference, dict):
        if "blockHash" in reference:
            return view.known(parse_hash(reference["blockHash"]))
        return view.at(height(view, reference["blockNumber"]))
    if isinstance(reference, str) and len(reference) == 66:
        return view.known(parse_hash(reference))
    return view.at(height(view, reference))


def text_json(text: str) -> bytes:
    """Text without characters to escape, as JSON."""
    return b'"%s"' % text.encode()


def _chain_id(endpoint: Endpoint, _: Params) -> bytes:
    return text_json(f"0x{_claimed_chain_id(endpoint):x}")


def _network(endpoint: Endpoint, _: Params) -> bytes:
    return text_json(str(_claimed_chain_id(endpoint)))


def _claimed_chain_id(endpoint: Endpoint) -> int:
    other = endpoint.faults.standing("other_chain")
    return other[1].chain_id if other else endpoint.chain.chain_id


def _client_version(_: Endpoint, __: Params) -> bytes:
    return text_json(CLIENT_VERSION)


def _false(_: Endpoint, __: Params) -> bytes:
    return b"false"


def _block_number(endpoint: Endpoint, _: Params) -> bytes:
    return text_json(f"0x{endpoint.view().head:x}")


def _get_block(endpoint: Endpoint, params: Params) -> bytes:
    block = find_block(endpoint.view(), params[0])
    if block is None:
        return NULL
    return block.full if len(params) > 1 and params[1] else block.brief


def _get_header(endpoint: Endpoint, params: Params) -> bytes:
    block = find_block(endpoint.view(), params[0])
    return block.header_only if block else NULL


def _get_receipts(endpoint: Endpoint, params: Params) -> bytes:
    block = find_block(endpoint.view(), params[0])
    return block.receipts if block else NULL


def _get_transaction(endpoint: Endpoint, params: Params) -> bytes:
    found = endpoint.view().transaction(parse_hash(params[0]))
    return found[0].transaction(found[1]) if found else NULL


def _get_receipt(endpoint: Endpoint, params: Params) -> bytes:
    found = endpoint.view().transaction(parse_hash(params[0]))
    return found[0].receipt(found[1]) if found else NULL


def _get_logs(endpoint: Endpoint, params: Params) -> bytes:
    query, view, limits = params[0], endpoint.view(), endpoint.limits
    wanted = LogFilter.parse(query.get("address"), query.get("topics"))
    if query.get("blockHash") is not None:
        if query.get("fromBlock") or query.get("toBlock"):
            raise ValueError(
                "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"
            )
        block_hash = parse_hash(query["blockHash"])
        if view.known(block_hash) is None:
            raise Refusal(SERVER_ERROR, "unknown block")
        logs = view.logs_of(block_hash, wanted)
    else:
        first = height(view, query.get("fromBlock") or "latest")
        last = height(view, query.get("toBlock") or "latest")
        if first > last:
            raise Refusal(INVALID_PARAMS, "invalid block range params")
        if last > view.head:
            raise Refusal(INVALID_PARAMS, "block range extends beyond current head block")
        span_max = limits.logs_range_blocks_max
        if span_max is not None and last - first + 1 > span_max:
            raise Refusal(INVALID_PARAMS, f"exceed maximum block range: {span_max}")
        logs = view.logs(first, last, wanted)
    found = list(logs)
    results_max = limits.logs_results_max
    if results_max is not None and len(found) > results_max:
        raise Refusal(LIMIT_EXCEEDED, f"query returned more than {results_max} results")
    return b"[" + b",".join(found) + b"]"


def _call(endpoint: Endpoint, params: Params) -> bytes:
    view, call = endpoint.view(), params[0]
    block = find_block(view, params[1] if len(params) > 1 else "latest")
    if block is None:
        raise Refusal(SERVER_ERROR, "header not found")
    number = block.number
    data = bytes.fromhex((call.get("input") or call.get("data") or "0x")[2:])
    target = bytes.fromhex((call.get("to") or "0x")[2:])

    def read(key: bytes) -> int:
        return view.value(key, number)

    try:
        returned = call_contract(endpoint.chain.seed, target, data, read)
    except Reverted as reverted:
        raise Refusal(REVERTED, "execution reverted") from reverted
    return text_json(f"0x{returned.hex()}")


METHODS: dict[str, Answering] = {
    "eth_chainId": _chain_id,
    "net_version": _network,
    "web3_clientVersion": _client_version,
    "eth_syncing": _false,
    "eth_blockNumber": _block_number,
    "eth_getBlockByNumber": _get_block,
    "eth_getBlockByHash": _get_block,
    "eth_getHeaderByNumber": _get_header,
    "eth_getHeaderByHash": _get_header,
    "eth_getBlockReceipts": _get_receipts,
    "eth_getTransactionByHash": _get_transaction,
    "eth_getTransactionReceipt": _get_receipt,
    "eth_getLogs": _get_logs,
    "eth_call": _call,
}


class Call(msgspec.Struct):
    """One call as it is sent; ``id`` keeps its own text."""

    method: str
    params: list[Any] = []
    id: msgspec.Raw = msgspec.Raw(b"null")


def success(call: Call, result: bytes) -> bytes:
    """The response to an answered call."""
    return b"".join((b'{"jsonrpc":"2.0","id":', call.id, b',"result":', result, b"}"))


def failure(call_id: bytes, refusal: Refusal) -> bytes:
    """The response to a refused call."""
    error = msgspec.json.encode({"code": refusal.code, "message": refusal.message})
    return b"".join((b'{"jsonrpc":"2.0","id":', call_id, b',"error":', error, b"}"))
