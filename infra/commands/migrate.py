"""Settings in, a chain's database as this version declares it out: `headrace migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.options import ChainOption, ConfigOption, JsonOption, RpcOption, read_settings
from infra.terminal import open_terminal

EXAMPLES = (
    "headrace migrate --config headrace.toml",
    "headrace migrate --chain local --chain-id 1337",
)


def migrate(
    config: ConfigOption = None,
    chain: ChainOption = None,
    chain_id: Annotated[
        int | None,
        typer.Option(
            "--chain-id",
            min=1,
            metavar="N",
            help="Id of the chain, where its name does not say it (default: asked of --rpc).",
        ),
    ] = None,
    rpc: RpcOption = None,
    json: JsonOption = False,
) -> int:
    """Cluster: make a chain's database, tables and views on your ClickHouse, or update them.

    Run it before the roles that write there, and again with each new version. It goes forward
    only, and changes nothing where nothing is to do.
    """
    settings = read_settings(config, chain=chain, rpc=rpc)
    from infra.roles.migrate import run_migrate  # noqa: PLC0415 - heavy imports wait for it

    return run_migrate(settings, chain_id, open_terminal(json=json))
