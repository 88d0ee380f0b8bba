"""A run says at its start when it cannot prove what `verify` asks for."""

from __future__ import annotations

import pytest

from infra.chain_of_endpoints import level_not_reached, meet_chain
from infra.devchain.chain import Chain, Spec
from infra.settings import Settings
from schemas.tables import Verification
from tests.ingest.devchain_node import pool_of, served

POLYGON_ID = 137


@pytest.mark.parametrize(
    ("chain", "source", "asked", "said"),
    [
        ("polygon", "receipts", "full", "polygon is proven to header only"),
        ("polygon", "receipts", "receipts", "polygon is proven to header only"),
        ("polygon", "receipts", "header", None),
        ("polygon", "receipts", None, None),
        ("polygon", "logs", "full", "polygon is proven to header only"),
        ("ethereum", "receipts", "full", None),
        ("ethereum", "logs", "receipts", "--source logs is proven to header only"),
        ("ethereum", "logs", "header", None),
        ("arbitrum", "receipts", "off", None),
    ],
)
def test_a_level_out_of_reach(chain: str, source: str, asked: str | None, said: str | None) -> None:
    level = None if asked is None else Verification[asked]
    warning = level_not_reached(Settings(chain=chain, source=source, verify=level))
    if said is None:
        assert warning is None
    else:
        assert warning is not None
        assert said in warning.what_text


async def test_it_is_said_when_the_chain_is_met() -> None:
    chain = Chain(Spec(chain_id=POLYGON_ID))
    chain.mine(3)
    notes: list[str] = []
    async with served(chain) as server, pool_of(server) as pool:
        settings = Settings(verify=Verification.full)
        settings, _, _ = await meet_chain(settings, pool, notes.append)
    assert settings.chain == "polygon"
    assert any("--verify full was asked for" in note and "State-sync" in note for note in notes)
