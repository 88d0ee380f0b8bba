"""Error objects in, their meaning out, as nodes and providers are known to word them."""

from __future__ import annotations

import pytest

from ingest.dialects import Meaning, RpcFault, fault_error, load_dialects, read_fault
from schemas.errors import HeadraceError
from schemas.errors_ingest import RangeTooWide, RateLimited

LOGS, BLOCK = "eth_getLogs", "eth_getBlockByNumber"

RANGES = [
    (
        "alchemy",
        -32602,
        "Log response size exceeded. [...] this block range should work: [0x10, 0x1f]",
        16,
    ),
    (
        "alchemy free",
        -32600,
        "you can make eth_getLogs requests with up to a 10 block range. [...] Try a range [0x1]",
        10,
    ),
    (
        "infura",
        -32005,
        "query returned more than 10000 results. Try with this block range [0x64, 0x6d].",
        10,
    ),
    ("infura", -32602, "range 1000000 exceeds limit of 10000", 10_000),
    ("reth", -32602, "query exceeds max results 20000, retry with the range 100-149", 50),
    ("reth", -32602, "query exceeds max block range 100000", 100_000),
    ("quicknode", -32614, "eth_getLogs is limited to a 10,000 range", 10_000),
    ("geth", -32602, "exceed maximum block range: 50000", 50_000),
    ("geth", -32602, "exceed max block range", None),
    ("avalanche", -32000, "requested too many blocks from 1 to 5000, maximum is set to 2048", 2048),
    (
        "cloudflare",
        -32047,
        "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800",
        800,
    ),
    ("thirdweb", -32000, "Maximum allowed number of requested blocks is 1000", 1000),
    ("coinbase", -32602, "please limit the query to at most 1,000 blocks", 1000),
    ("publicnode", -32701, "exceed maximum block range: 50000", 50_000),
    ("blast", -32000, "exceeds the range allowed for your plan (5000 > 500)", 500),
    ("drpc", 35, "ranges over 10000 blocks are not supported on freetier", 10_000),
    ("swell", -32602, "block range greater than 500 max", 500),
    ("moonbeam", -32603, "block range is too wide (maximum 1024)", 1024),
    ("harmony", -32000, "query must be smaller than size 1024", 1024),
    ("merkle", -32000, "eth_getLogs range is too large, max is 1k blocks", 1000),
    ("ankr", -32600, "block range is too wide", 3000),
    ("base", -32000, "block range too large", None),
    ("optimism", -32020, "backend response too large", None),
    ("chainstack", -32602, "Block range limit exceeded. See more details at chainstack", None),
    ("arbitrum", -32000, "logs matched by query exceeds limit of 10000", None),
    ("erigon", -32000, "query returned more than 10000 results", None),
    ("nethermind", -32005, "Too many logs requested. Max logs per response is 20000.", None),
    ("scroll", -32000, "block range is bigger than maxBlockRange", None),
    ("geth timeout", -32002, "query timeout exceeded", None),
    ("besu", -32005, "Requested range exceeds maximum RPC range limit", None),
    ("bsc", -32005, "limit exceeded", None),
    (
        "morph",
        -32000,
        "block range is larger than max block range, block range = 5120, max block range = 5000",
        5000,
    ),
    ("tenderly", -32602, 'invalid params "range 9009594 is bigger than range limit 2000"', 2000),
]


@pytest.mark.parametrize(("provider", "code", "message", "blocks"), RANGES)
def test_range_refusals_and_what_they_allow(
    provider: str, code: int, message: str, blocks: int | None
) -> None:
    reading = read_fault(RpcFault(code, message), LOGS)
    assert reading.meaning is Meaning.range_too_wide, provider
    assert reading.blocks_max == blocks, provider


@pytest.mark.parametrize(
    ("code", "message", "method", "meaning"),
    [
        (-32601, "the method eth_getBlockReceipts does not exist/is not available", BLOCK,
         Meaning.method_missing),
        (-32004, "method not supported", BLOCK, Meaning.method_missing),
        (-32600, "method eth_getBlockReceipts is not whitelisted", BLOCK, Meaning.method_missing),
        (-32000, "Method not found", BLOCK, Meaning.method_missing),
        (429, "Your app has exceeded its compute units per second capacity", BLOCK,
         Meaning.rate_limited),
        (-32005, "daily request count exceeded, request rate limited", BLOCK, Meaning.rate_limited),
        (-32005, "project ID request rate exceeded", LOGS, Meaning.rate_limited),
        (-32007, "50/second request limit reached - reduce calls per second", BLOCK,
         Meaning.rate_limited),
        (-32016, "over rate limit", BLOCK, Meaning.rate_limited),
        (15, "Too many request, try again later", BLOCK, Meaning.rate_limited),
        (-32090, "Too many requests, reason: call rate limit exhausted", BLOCK,
         Meaning.rate_limited),
        (-32600, "batch too large", BLOCK, Meaning.batch_refused),
        (-32000, "batch limit 100 exceeded (can increase by --rpc.batch.limit)", BLOCK,
         Meaning.batch_refused),
        (31, "Batch of more than 3 requests are not allowed on free tier", BLOCK,
         Meaning.batch_refused),
        (-32000, "unknown block", LOGS, Meaning.not_served),
        (-32001, "8633830 could not be found", LOGS, Meaning.not_served),
        (-32000, "header not found", BLOCK, Meaning.not_served),
        (-32000, "One of the blocks in filter cannot be found.", LOGS, Meaning.not_served),
        (-32000, "cannot query unfinalized data", LOGS, Meaning.not_served),
        (-32000, "block range extends beyond current head block", LOGS, Meaning.not_served),
        (4444, "pruned history unavailable", BLOCK, Meaning.pruned),
        (-32000, "missing trie node", BLOCK, Meaning.pruned),
        (-32000, "history has been pruned for this block", BLOCK, Meaning.pruned),
        (-32000, "Must be authenticated!", BLOCK, Meaning.access_refused),
        (-32002, "invalid project id", BLOCK, Meaning.access_refused),
        (-32003, "response size exceeded", BLOCK, Meaning.too_large),
        (-32008, "Response is too big", BLOCK, Meaning.too_large),
        (-32602, "invalid argument 0: hex string without 0x prefix", BLOCK, Meaning.invalid),
        (-32603, "internal error", BLOCK, Meaning.failed),
        (-32000, "execution aborted", BLOCK, Meaning.failed),
        (0, "", BLOCK, Meaning.failed),
    ],
)  # fmt: skip
def test_other_meanings(code: int, message: str, method: str, meaning: Meaning) -> None:
    assert read_fault(RpcFault(code, message), method).meaning is meaning


def test_range_words_do_not_count_for_other_methods() -> None:
    fault = RpcFault(-32000, "block range is too wide")
    assert read_fault(fault, BLOCK).meaning is Meaning.failed


def test_the_wait_of_infura_is_read_from_its_data() -> None:
    data = '{"rate":{"allowed_rps":1,"backoff_seconds":30,"current_rps":1.4}}'
    error = fault_error(RpcFault(-32005, "project ID request rate exceeded", data), "x", BLOCK)
    assert isinstance(error, RateLimited)
    assert error.data["retry_after_seconds"] == 30.0


def test_a_range_that_works_reaches_the_error() -> None:
    fault = RpcFault(-32602, "this block range should work: [0x1, 0x64]")
    error = fault_error(fault, "x", LOGS)
    assert isinstance(error, RangeTooWide)
    assert error.data["blocks_max"] == 100


def test_a_backward_or_empty_suggestion_is_not_followed() -> None:
    fault = RpcFault(-32602, "this block range should work: [0x64, 0x1]")
    assert read_fault(fault, LOGS).blocks_max is None


@pytest.mark.parametrize("meaning", list(Meaning))
def test_every_meaning_has_a_coded_error_that_can_be_shown(meaning: Meaning) -> None:
    rule = next((rule for rule in load_dialects() if rule.meaning is meaning), None)
    assert rule is not None or meaning is Meaning.failed
    samples = {
        read_fault(RpcFault(code, text), method).meaning: RpcFault(code, text)
        for code, text, method in [
            (-32000, "block range too large", LOGS),
            (429, "", BLOCK),
            (-32000, "batch too large", BLOCK),
            (-32601, "", BLOCK),
            (-32001, "", BLOCK),
            (4444, "", BLOCK),
            (-32051, "", BLOCK),
            (-32003, "too large", BLOCK),
            (-32602, "", BLOCK),
            (-32603, "", BLOCK),
        ]
    }
    method = LOGS if meaning is Meaning.range_too_wide else BLOCK
    error = fault_error(samples[meaning], "host#1", method)
    assert isinstance(error, HeadraceError)
    for text in (error.what_text, error.why_text, error.fix_text):
        assert text
        assert "{" not in text
