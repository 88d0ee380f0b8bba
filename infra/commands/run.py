"""Endpoints and a range in, tables that can be queried out: `headrace run`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infra.attached import patient_start
from infra.display import Display
from infra.options import (
    ChainOption,
    ConfigOption,
    DataOption,
    FromOption,
    JsonOption,
    RpcOption,
    read_settings,
)
from infra.ports import HOST, check_port
from infra.terminal import open_terminal
from schemas.errors_settings import EndpointMissing
from schemas.tables import Verification

EXAMPLES = (
    "headrace run --rpc https://rpc.example/KEY --from 20000000",
    "headrace run --chain base --rpc URL1 --rpc URL2 --from 25000000 --to 25100000",
    "headrace run --source logs --config headrace.toml",
)


class Source(StrEnum):
    """Where logs come from."""

    receipts = "receipts"
    logs = "logs"


Level = StrEnum("Level", {level.name: level.name for level in Verification})  # type: ignore[misc]


def run(
    config: ConfigOption = None,
    chain: ChainOption = None,
    rpc: RpcOption = None,
    from_block: FromOption = None,
    to_block: Annotated[
        str | None,
        typer.Option("--to", metavar="N|latest", help="Last block; `latest` follows the head."),
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option(
            metavar="receipts|logs", help="`receipts`: provable; `logs`: eth_getLogs only, cheap."
        ),
    ] = None,
    verify: Annotated[
        Level | None,
        typer.Option(
            metavar="|".join(Verification.__members__),
            help="How far blocks are proven (default: receipts for history, full at the head).",
        ),
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Index a chain: backfill from --from, then follow the head.

    With --to N it ends when all of N can be queried. Ctrl-C drains and says how to resume;
    whatever stops it, the next run goes on where it was.
    """
    settings = read_settings(
        config,
        chain=chain,
        rpc=rpc,
        from_block=from_block,
        to_block=to_block,
        source=source.value if source else None,
        verify=verify.value if verify else None,
        data_dir=data,
    )
    if not settings.rpc:
        raise EndpointMissing(chain=settings.chain or "the chain")
    from infra.pipeline import run_pipeline  # noqa: PLC0415 - heavy imports wait for their command

    if settings.metrics_port is not None:
        check_port(HOST, settings.metrics_port)
    display = Display(
        open_terminal(json=json), data_dir=settings.data_dir, metrics_port=settings.metrics_port
    )
    return patient_start(settings.data_dir, lambda: run_pipeline(settings, display))
