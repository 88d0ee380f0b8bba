"""Settings in, a cluster on this machine started, shown or ended out: `headrace local`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.options import (
    ChainOption,
    ConfigOption,
    FromOption,
    JsonOption,
    RpcOption,
    read_settings,
)
from infra.terminal import open_terminal
from schemas.errors_settings import EndpointMissing

EXAMPLES = (
    "headrace local up --rpc https://rpc.example/KEY --from 20000000 --workers 2",
    "headrace local status",
    "headrace local down",
    "headrace local down --wipe",
)


class Action(StrEnum):
    """What is done with the cluster."""

    up = "up"
    status = "status"
    down = "down"


def local(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="up|status|down",
            help="`up` starts it and comes back when all of it is ready; `status` shows its "
            "processes; `down` lets it drain and ends it.",
        ),
    ],
    config: ConfigOption = None,
    chain: ChainOption = None,
    rpc: RpcOption = None,
    from_block: FromOption = None,
    to_block: Annotated[
        str | None,
        typer.Option("--to", metavar="N|latest", help="Last block; `latest` follows the head."),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where it keeps all that it has.")
    ] = Path("headrace-local"),
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", min=1, metavar="N", help="Partitions of a topic of segments."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, metavar="N", help="Processes of each lane, and of the sink."
        ),
    ] = 1,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", metavar="", help="`up` stays, and Ctrl-C ends the cluster."),
    ] = False,
    wipe: Annotated[
        bool, typer.Option("--wipe", metavar="", help="`down` removes what is stored, too.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Cluster: Kafka, ClickHouse and every role on this machine, without Docker.

    The first `up` fetches Kafka (44 MB) by Maven and needs Java 17. What dies is started again;
    if the cluster's own process dies, all of it ends. Query it with
    `headrace sql --data headrace-local/clickhouse`.
    """
    from infra.local import commands  # noqa: PLC0415 - heavy imports wait for their command

    terminal = open_terminal(json=json)
    if action is Action.status:
        return commands.show_status(terminal, directory)
    if action is Action.down:
        return commands.take_down(terminal, directory, wipe=wipe)
    settings = read_settings(
        config,
        chain=chain,
        rpc=rpc,
        from_block=from_block,
        to_block=to_block,
        kafka__partitions=partitions,
    )
    if not settings.rpc:
        raise EndpointMissing(chain=settings.chain or "the chain")
    if foreground:
        return commands.hold(settings, directory, workers)
    return commands.bring_up(terminal, settings, directory, workers)
