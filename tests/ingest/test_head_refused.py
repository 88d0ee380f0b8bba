"""A head that cannot be read or proven ends the run with its code, once no other has come."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors_verify import AnswerRefused, HexMalformed, PayloadInvalid
from tests.ingest.fake_node import FakeNode, fake_chain
from tests.ingest.test_head import FAST, following
from tests.patience import PATIENCE_SECONDS

LIMITS = replace(FAST, head_silent_seconds=0.05)


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("timestamp", "0x" + "f" * 20, HexMalformed),
        ("timestamp", "1700000000", HexMalformed),
        ("hash", "0x12", HexMalformed),
        ("parentHash", None, PayloadInvalid),
    ],
)
async def test_a_head_refused_for_long_ends_in_its_code(
    field: str, value: str | None, refusal: type[AnswerRefused]
) -> None:
    chain = fake_chain(12)

    def latest(block_id: str, whole: bool) -> dict[str, Any]:
        block = node.block(block_id, whole) or {}
        return block | {field: value} if block_id == "latest" else block

    async with FakeNode(chain) as node:
        node.overrides["eth_getBlockByNumber"] = latest
        async with following(node, known=chain[:10], limits=LIMITS) as (_, _follower, task):
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(refusal) as caught:
                    await task
    assert caught.value.what_text.startswith("127.0.0.1:")
    if refusal is HexMalformed:
        assert "block 0xb" in caught.value.what_text


async def test_a_head_refused_of_one_endpoint_stops_nothing() -> None:
    chain = fake_chain(12)
    async with FakeNode(chain) as bad, FakeNode(chain) as good:
        bad.overrides["eth_getBlockByNumber"] = lambda *_: {"number": "0x0b"}
        async with following(bad, good, known=chain[:10], limits=LIMITS) as (sink, _, task):
            await sink.until(lambda s: s.holds(chain[10:]))
            more = fake_chain(5, start=chain[-1])
            await good.extend(more)
            await sink.until(lambda s: s.holds(more))
            assert not task.done()
