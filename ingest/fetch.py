"""Heights or hashes in, JSON of blocks with their receipts out: all from one endpoint.

A block and its receipts travel in one request where the endpoint allows it. What an endpoint
cannot do is learnt from its refusals, and the next best way is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import structlog

from ingest.endpoint import Endpoint, ReceiptsBy
from ingest.rpc import Outcome, RpcCall
from schemas.errors import HeadraceError
from schemas.errors_ingest import (
    BlockNotServed,
    CallFailed,
    CallInvalid,
    HistoryPruned,
    MethodMissing,
    ReceiptsEmpty,
    ReceiptsNotServed,
)
from schemas.errors_verify import PayloadInvalid

log = structlog.get_logger(__name__)

BlockId: TypeAlias = int | bytes
"""A block's height, or its hash."""
Json: TypeAlias = bytes | msgspec.Raw
"""JSON text of one result."""

NULL = msgspec.Raw(b"null")
"""What a node answers for a thing that it does not have."""
CALLS_PER_BLOCK = 2
"""Calls for a block with receipts on an endpoint that offers eth_getBlockReceipts."""


@dataclass(frozen=True, slots=True)
class BlockPayload:
    """One block as an endpoint served it, still JSON."""

    wanted: BlockId
    """What was asked for."""
    block: Json
    """The result of eth_getBlockBy… with whole transactions; never null."""
    receipts: Json
    """A JSON array: of receipts, or of logs where `receipts_by` is `logs`; never null."""
    receipts_by: ReceiptsBy
    """How the receipts were had."""


class _BlockBody(msgspec.Struct, gc=False, rename="camel"):
    hash: str
    transactions: list[msgspec.Raw]
    logs_bloom: str | None = None
    receipts_root: str | None = None


class _TransactionRef(msgspec.Struct, gc=False):
    hash: str


_NO_RECEIPTS = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
"""receiptsRoot of a block without receipts: the root of an empty trie."""

_block_body = msgspec.json.Decoder(_BlockBody)
_transaction_ref = msgspec.json.Decoder(_TransactionRef)


def block_text(block: BlockId) -> str:
    """A block's id for people: its height, or its hash."""
    return str(block) if isinstance(block, int) else "0x" + block.hex()


def block_call(block: BlockId, whole: bool) -> RpcCall:
    """The call for a block, with whole transactions or with their hashes."""
    if isinstance(block, int):
        return RpcCall("eth_getBlockByNumber", (hex(block), whole))
    return RpcCall("eth_getBlockByHash", ("0x" + block.hex(), whole))


def _receipts_call(block: BlockId) -> RpcCall:
    return RpcCall(
        "eth_getBlockReceipts", (hex(block) if isinstance(block, int) else "0x" + block.hex(),)
    )


async def fetch_headers(endpoint: Endpoint, wanted: Sequence[BlockId]) -> list[msgspec.Raw]:
    """Headers (blocks with transaction hashes only) as JSON.

    Raises
    ------
    BlockNotServed, HistoryPruned, or any failure of a request
    """
    outcomes = await endpoint.ask([block_call(block, False) for block in wanted])
    return [block_or_raise(endpoint, *pair) for pair in zip(wanted, outcomes, strict=True)]


async def fetch_blocks(endpoint: Endpoint, wanted: Sequence[BlockId]) -> list[BlockPayload]:
    """Blocks with their receipts, all from `endpoint`.

    Parameters
    ----------
    endpoint : Endpoint
        Who is asked.
    wanted : Sequence[int | bytes]
        Heights or hashes.

    Returns
    -------
    list[BlockPayload]
        One a block, in order.

    Raises
    ------
    BlockNotServed, ReceiptsNotServed, ReceiptsEmpty
        It lacks one of them, or has not indexed it yet.
    HistoryPruned
        It keeps no such history.
    HeadraceError
        A request failed.
    """
    by_hash = any(isinstance(block, bytes) for block in wanted)
    if endpoint.can.receipts_by is not ReceiptsBy.block or (
        by_hash and not endpoint.can.receipts_by_hash
    ):
        return await _fetch_in_two_steps(endpoint, wanted)
    calls = [call for block in wanted for call in (block_call(block, True), _receipts_call(block))]
    outcomes = await endpoint.ask(calls)
    blocks, receipts = outcomes[0::2], outcomes[1::2]
    if any(_is_refusal(outcome) for outcome in receipts):
        _learn_refusal(endpoint, ReceiptsBy.block, receipts, by_hash)
        raws = [block_or_raise(endpoint, *pair) for pair in zip(wanted, blocks, strict=True)]
        return await _add_receipts(endpoint, wanted, raws)
    receipts = await _replace_failed(endpoint, wanted, blocks, receipts)
    return [
        _payload(endpoint, block, ReceiptsBy.block, pair)
        for block, pair in zip(wanted, zip(blocks, receipts, strict=True), strict=True)
    ]


async def _fetch_in_two_steps(endpoint: Endpoint, wanted: Sequence[BlockId]) -> list[BlockPayload]:
    outcomes = await endpoint.ask([block_call(block, True) for block in wanted])
    raws = [block_or_raise(endpoint, *pair) for pair in zip(wanted, outcomes, strict=True)]
    return await _add_receipts(endpoint, wanted, raws)


async def _add_receipts(
    endpoint: Endpoint, wanted: Sequence[BlockId], raws: Sequence[msgspec.Raw]
) -> list[BlockPayload]:
    """Receipts of blocks already had, by the best way that the endpoint does not refuse."""
    bodies = [_decode_body(endpoint, *pair) for pair in zip(wanted, raws, strict=True)]
    while True:
        way = endpoint.can.receipts_by
        ids = wanted
        if way is ReceiptsBy.block:
            if not endpoint.can.receipts_by_hash:
                ids = [_height(raw) for raw in raws]
            outcomes = await endpoint.ask([_receipts_call(block) for block in ids])
        elif way is ReceiptsBy.transaction:
            outcomes = await _receipts_by_transaction(endpoint, wanted, bodies)
        else:
            outcomes = await endpoint.ask(
                [RpcCall("eth_getLogs", ({"blockHash": body.hash},)) for body in bodies]
            )
        if not any(_is_refusal(outcome) for outcome in outcomes) or way is ReceiptsBy.logs:
            break
        _learn_refusal(endpoint, way, outcomes, any(isinstance(block, bytes) for block in ids))
    if way is ReceiptsBy.block:
        outcomes = await _replace_failed(endpoint, wanted, raws, outcomes)
    return [
        _payload(endpoint, block, way, pair)
        for block, pair in zip(wanted, zip(raws, outcomes, strict=True), strict=True)
    ]


async def _replace_failed(
    endpoint: Endpoint,
    wanted: Sequence[BlockId],
    blocks: Sequence[Outcome],
    receipts: Sequence[Outcome],
) -> list[Outcome]:
    """Ask for single receipts of those blocks whose whole list the node fails to give.

    Some nodes fail so for one block for ever, and serve all others.
    """
    replaced = list(receipts)
    failed: dict[int, msgspec.Raw] = {
        at: block
        for at, (block, outcome) in enumerate(zip(blocks, receipts, strict=True))
        if isinstance(outcome, CallFailed) and not isinstance(block, HeadraceError)
        if block != NULL
    }
    if not failed:
        return replaced
    asked = [wanted[at] for at in failed]
    bodies = [_decode_body(endpoint, wanted[at], block) for at, block in failed.items()]
    again = await _receipts_by_transaction(endpoint, asked, bodies)
    for at, outcome in zip(failed, again, strict=True):
        if isinstance(outcome, CallFailed):
            tried = "eth_getBlockReceipts, and then eth_getTransactionReceipt,"
            outcome = CallFailed(**{**outcome.data, "method": tried})
        replaced[at] = outcome
    return replaced


async def _receipts_by_transaction(
    endpoint: Endpoint, wanted: Sequence[BlockId], bodies: Sequence[_BlockBody]
) -> list[Outcome]:
    """One JSON array of receipts a block, put together from single receipts."""
    hashes = [
        [_transaction_ref.decode(transaction).hash for transaction in body.transactions]
        for body in bodies
    ]
    asked = [RpcCall("eth_getTransactionReceipt", (h,)) for block in hashes for h in block]
    outcomes = await endpoint.ask(asked)
    arrays: list[Outcome] = []
    at = 0
    for block, block_hashes in zip(wanted, hashes, strict=True):
        part = outcomes[at : at + len(block_hashes)]
        at += len(block_hashes)
        failed = next((one for one in part if isinstance(one, HeadraceError)), None)
        if failed is not None:
            arrays.append(failed)
        elif any(one == NULL for one in part):
            arrays.append(ReceiptsNotServed(endpoint=endpoint.name, block=block_text(block)))
        else:
            texts = [bytes(one) for one in part if not isinstance(one, HeadraceError)]
            arrays.append(msgspec.Raw(b"[" + b",".join(texts) + b"]"))
    return arrays


def _is_refusal(outcome: Outcome) -> bool:
    return isinstance(outcome, MethodMissing | CallInvalid)


def _learn_refusal(
    endpoint: Endpoint, way: ReceiptsBy, outcomes: Sequence[Outcome], by_hash: bool
) -> None:
    """Remember which way to receipts the endpoint refused; others may have learnt it meanwhile."""
    missing = any(isinstance(outcome, MethodMissing) for outcome in outcomes)
    if way is ReceiptsBy.block and by_hash and not missing:
        endpoint.can.receipts_by_hash = False
    else:
        endpoint.can.receipts_by = ReceiptsBy(max(endpoint.can.receipts_by, way + 1))
        log.warning(
            "receipts_by",
            endpoint=endpoint.name,
            refused=way.name,
            way=endpoint.can.receipts_by.name,
        )


def block_or_raise(endpoint: Endpoint, wanted: BlockId, outcome: Outcome) -> msgspec.Raw:
    """The JSON of a block; raises where it is null or an error."""
    if isinstance(outcome, HeadraceError):
        raise _named(endpoint, wanted, outcome)
    if outcome == NULL:
        raise BlockNotServed(endpoint=endpoint.name, block=block_text(wanted))
    return outcome


def _named(endpoint: Endpoint, wanted: BlockId, error: HeadraceError) -> HeadraceError:
    """The error with the block it concerns; pruned history is remembered."""
    if isinstance(error, BlockNotServed):
        return BlockNotServed(endpoint=endpoint.name, block=block_text(wanted))
    if isinstance(error, HistoryPruned):
        if isinstance(wanted, int):
            endpoint.can.history_floor = max(endpoint.can.history_floor, wanted + 1)
        return HistoryPruned(endpoint=endpoint.name, block=block_text(wanted))
    return error


def _payload(
    endpoint: Endpoint, wanted: BlockId, way: ReceiptsBy, answers: tuple[Outcome, Outcome]
) -> BlockPayload:
    block, receipts = block_or_raise(endpoint, wanted, answers[0]), answers[1]
    if isinstance(receipts, BlockNotServed):
        raise ReceiptsNotServed(endpoint=endpoint.name, block=block_text(wanted))
    if isinstance(receipts, HeadraceError):
        raise _named(endpoint, wanted, receipts)
    if receipts == NULL:
        raise ReceiptsNotServed(endpoint=endpoint.name, block=block_text(wanted))
    if len(receipts) <= 2:
        body = _decode_body(endpoint, wanted, block)
        logs_due = (body.logs_bloom or "").strip("0x") != ""
        receipts_due = body.transactions and (body.receipts_root or "").lower() != _NO_RECEIPTS
        if logs_due if way is ReceiptsBy.logs else receipts_due:
            raise ReceiptsEmpty(
                endpoint=endpoint.name,
                block=block_text(wanted),
                transactions=len(body.transactions),
                root="logsBloom" if way is ReceiptsBy.logs else "receiptsRoot",
            )
    return BlockPayload(wanted, block, receipts, way)


def _decode_body(endpoint: Endpoint, wanted: BlockId, block: msgspec.Raw) -> _BlockBody:
    try:
        return _block_body.decode(block)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        call = block_call(wanted, True)
        reason = f"block {block_text(wanted)}: {error}"
    raise PayloadInvalid(endpoint=endpoint.name, method=call.method, reason=reason)


class _BlockNumber(msgspec.Struct, gc=False):
    number: str


_block_number = msgspec.json.Decoder(_BlockNumber)


def _height(block: msgspec.Raw) -> int:
    return int(_block_number.decode(block).number, 16)
