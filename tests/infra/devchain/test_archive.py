"""An archive against the chain that it was made from, and its totals against the rows."""

import json

import pytest

from infra.devchain import Budget, Chain, Spec, serve_in_thread, truth_of
from infra.devchain.archive import FACTS, Archive, open_archive, write_archive
from infra.devchain.cast import cast_of
from infra.devchain.logfilter import LogFilter
from infra.devchain.signatures import TRANSFER
from tests.infra.devchain.client import call, refusal

SPEC = Spec(seed=23, chain_id=99, budget=Budget(10, 40), finality_depth=15, safe_depth=6)
HEAD = 50


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(SPEC)
    made.mine(HEAD)
    return made


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(SPEC, HEAD, folder)
    return Archive(folder)


def test_blocks_are_the_same_bytes(chain, archive):
    assert (archive.view.head, archive.view.safe, archive.view.finalized) == (50, 44, 35)
    for number in range(HEAD + 1):
        lived, kept = chain.view.at(number), archive.view.at(number)
        assert lived
        assert kept
        assert kept.full == lived.full
        assert kept.receipts == lived.receipts
        assert kept.header_only == lived.header_only
        assert json.loads(kept.brief) == json.loads(lived.brief)
        assert archive.view.known(lived.hash) == kept
        for index, sent in enumerate(lived.transaction_hashes):
            block, at = archive.view.transaction(sent)
            assert (block.number, at) == (number, index)
            assert block.transaction(at) == lived.transaction(index)
            assert block.receipt(at) == lived.receipt(index)
    assert archive.view.at(HEAD + 1) is None
    assert archive.view.known(bytes(32)) is None
    assert archive.view.transaction(bytes(32)) is None


def test_logs_are_the_same(chain, archive):
    token, weth = chain.cast.tokens[0].address, chain.cast.weth.address
    holder = chain.cast.exchange.word
    filters = [
        LogFilter(None, ()),
        LogFilter(None, (frozenset({TRANSFER}),)),
        LogFilter(frozenset({token, weth}), (None, frozenset({holder}))),
        LogFilter(None, (None, None, None, None)),
        LogFilter(frozenset({bytes(20)}), ()),
        LogFilter(frozenset({token}), (frozenset({TRANSFER, bytes(32)}), frozenset({holder}))),
    ]
    for wanted in filters:
        for first, last in ((0, HEAD), (7, 7), (30, HEAD), (0, 0)):
            expected = list(chain.view.logs(first, last, wanted))
            assert list(archive.view.logs(first, last, wanted)) == expected
        block = chain.blocks()[20].hash
        assert list(archive.view.logs_of(block, wanted)) == list(chain.view.logs_of(block, wanted))


def test_totals_are_those_of_the_rows(chain, archive):
    tables = truth_of(chain.blocks(), SPEC.chain_id)
    for table, totals in archive.truth.items():
        rows = tables[table].values()
        assert totals["rows"] == len(rows), table
        for column in set(totals) - {"rows"}:
            total = sum(row[column] or 0 for row in rows) % (1 << 256)
            assert totals[column] == total, (table, column)
    assert {name for name, rows in tables.items() if rows} == set(archive.truth)


def test_an_archive_is_made_once(tmp_path):
    open_archive(SPEC, 3, tmp_path)
    written = (tmp_path / FACTS).stat().st_mtime_ns
    assert open_archive(SPEC, 3, tmp_path).view.head == 3
    assert (tmp_path / FACTS).stat().st_mtime_ns == written
    assert open_archive(SPEC, 4, tmp_path).view.head == 4


def test_an_archive_is_served(archive):
    with serve_in_thread(archive) as serving:
        url = serving.http_urls[0]
        assert call(url, "eth_chainId") == hex(99)
        assert call(url, "eth_getBlockByNumber", "finalized", True)["number"] == hex(35)
        assert (
            len(call(url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x32"}))
            == (archive.truth["logs"]["rows"])
        )
        weth = "0x" + cast_of(SPEC.seed).weth.address.hex()
        assert call(url, "eth_call", {"to": weth, "data": "0x313ce567"}, "latest")
        refused = refusal(url, "eth_call", {"to": weth, "data": "0x18160ddd"}, "latest")
        assert refused[1].startswith("missing trie node")
