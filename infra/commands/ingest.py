"""Endpoints and a range in, a chain's blocks in Kafka out: `headrace ingest`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.display import Display
from infra.options import (
    ChainOption,
    ConfigOption,
    FromOption,
    JsonOption,
    LanesOption,
    RpcOption,
    read_settings,
)
from infra.terminal import open_terminal
from schemas.errors_settings import EndpointMissing

EXAMPLES = (
    "headrace ingest --config headrace.toml",
    "headrace ingest --config headrace.toml --lanes history --from 20000000 --to 20100000",
)


def ingest(
    config: ConfigOption = None,
    chain: ChainOption = None,
    rpc: RpcOption = None,
    from_block: FromOption = None,
    to_block: Annotated[
        str | None,
        typer.Option("--to", metavar="N|latest", help="Last block; `latest` follows the head."),
    ] = None,
    lanes: LanesOption = None,
    json: JsonOption = False,
) -> int:
    """Cluster: bring a chain's blocks into Kafka, history and head side by side.

    Needs Kafka and no ClickHouse. It keeps nothing: start it anywhere, as often as you like; it
    goes on from the checkpoint in Kafka. With --to N it ends when all of N is acknowledged.
    """
    settings = read_settings(
        config,
        chain=chain,
        rpc=rpc,
        from_block=from_block,
        to_block=to_block,
        roles__lanes=lanes,
    )
    if not settings.rpc:
        raise EndpointMissing(chain=settings.chain or "the chain")
    from infra.roles.ingest import run_ingest  # noqa: PLC0415 - heavy imports wait for their command

    return run_ingest(settings, Display(open_terminal(json=json)))
