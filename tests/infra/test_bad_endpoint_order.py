"""A bad endpoint is left out by name, whether it is given first or last."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import web

from infra.chain_of_endpoints import ask_chain_id, meet_chain
from infra.settings import Settings
from schemas.errors_ingest import ChainIdMalformed, ChainIdWrong, ChainsDiffer
from tests.ingest.fake_node import FakeNode, fake_chain
from tests.ingest.test_preflight import pool_of

MALFORMED: list[object] = [
    None,
    5,
    {},
    "0x",
    "0x" + "ff" * 10,
    "1337",
    "7",
    "0x0_7",
    " 0x7",
    [],
    True,
    1e300,
]
"""Answers to eth_chainId that are no chain id."""


def refuse_rate(_: object) -> web.StreamResponse:
    return web.Response(status=429)


def answer_html(_: object) -> web.StreamResponse:
    return web.Response(text="<html></html>", content_type="text/html")


async def run_order(bad: FakeNode, good: FakeNode, *, first: bool) -> tuple[int, list[str]]:
    urls = [bad.url, good.url] if first else [good.url, bad.url]
    notes: list[str] = []
    async with pool_of(*urls) as pool:
        _, facts, said = await meet_chain(Settings(), pool, notes.append)
        assert facts.name == "local"
        left_out = {name: error.code for name, error in said.excluded}
        assert len(left_out) == 1
        assert len(pool.usable()) == 1
    return said.chain_id, notes


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("answer", MALFORMED)
async def test_a_malformed_chain_id_is_named(answer: object, *, first: bool) -> None:
    async with FakeNode(fake_chain(30)) as bad, FakeNode(fake_chain(30)) as good:
        bad.overrides["eth_chainId"] = lambda: answer
        chain_id, notes = await run_order(bad, good, first=first)
    assert chain_id == 7
    assert any("answered eth_chainId with" in note for note in notes)


@pytest.mark.parametrize("answer", MALFORMED)
async def test_a_single_endpoint_with_a_malformed_chain_id(answer: object) -> None:
    async with FakeNode(fake_chain(30)) as bad, pool_of(bad.url) as pool:
        bad.overrides["eth_chainId"] = lambda: answer
        with pytest.raises(ChainIdMalformed, match="answered eth_chainId with"):
            await ask_chain_id(pool)


@pytest.mark.parametrize("first", [True, False])
async def test_the_chain_that_most_endpoints_serve(*, first: bool) -> None:
    chain = fake_chain(30)
    async with FakeNode(chain, 1) as bad, FakeNode(chain) as good, FakeNode(chain) as other:
        urls = [good.url, other.url]
        async with pool_of(*([bad.url, *urls] if first else [*urls, bad.url])) as pool:
            _, facts, said = await meet_chain(Settings(), pool, lambda _: None)
    assert (facts.name, said.chain_id) == ("local", 7)
    assert [error.code for _, error in said.excluded] == [ChainIdWrong.code]


@pytest.mark.parametrize("first", [True, False])
async def test_no_majority_asks_for_the_chain(*, first: bool) -> None:
    async with FakeNode(fake_chain(30), 1) as bad, FakeNode(fake_chain(30)) as good:
        urls = [bad.url, good.url] if first else [good.url, bad.url]
        async with pool_of(*urls) as pool:
            with pytest.raises(ChainsDiffer, match="no chain is named"):
                await meet_chain(Settings(), pool, lambda _: None)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("answer", [refuse_rate, answer_html, None])
async def test_an_endpoint_that_does_not_answer(
    answer: Callable[[object], web.StreamResponse] | None, *, first: bool
) -> None:
    async with FakeNode(fake_chain(30)) as bad, FakeNode(fake_chain(30)) as good:
        bad.intercept = answer
        dead = "http://127.0.0.1:9/"
        lame = bad.url if answer else dead
        urls = [lame, good.url] if first else [good.url, lame]
        async with pool_of(*urls) as pool:
            _, _, said = await meet_chain(Settings(), pool, lambda _: None)
    assert said.chain_id == 7
    assert said.head.number == 29
    assert len(said.excluded) + len(said.warnings) == 1
