"""A range of blocks in, the same blocks ingested once more out: `headrace replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.display import Display
from infra.options import ConfigOption, DataOption, JsonOption, RpcOption, read_settings
from infra.terminal import open_terminal
from schemas.errors_settings import EndpointMissing, RangeInvalid

EXAMPLES = (
    "headrace replay --config headrace.toml --from 20000000 --to 20010000",
    "headrace replay --data headrace-data --rpc https://rpc.example/KEY --from 0 --to 999",
)


def replay(
    from_block: Annotated[
        int, typer.Option("--from", min=0, metavar="N", help="First block, included.")
    ],
    to_block: Annotated[
        int, typer.Option("--to", min=0, metavar="N", help="Last block, included.")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    rpc: RpcOption = None,
    json: JsonOption = False,
) -> int:
    """Ingest a range once more: nothing changes where nothing was wrong, and what was is mended.

    Takes whole segments of final, visible blocks. In a cluster its ingesters, agents and sinks do
    the work, and load what of the range is not visible, or not final, too; with --data it is done
    here, while no run owns the directory.
    """
    if from_block > to_block:
        raise RangeInvalid(from_block=from_block, to_block=to_block)
    settings = read_settings(config, rpc=rpc, data_dir=data)
    from infra.replay import show_replayed  # noqa: PLC0415 - heavy imports wait for their command

    display = Display(open_terminal(json=json))
    if settings.clickhouse.url is not None and data is None:
        from infra.replay_cluster import replay_cluster  # noqa: PLC0415

        done = replay_cluster(settings, from_block, to_block, display)
    else:
        from infra.replay_embedded import replay_embedded  # noqa: PLC0415

        if not settings.rpc:
            raise EndpointMissing(chain=settings.chain or "the chain")
        done = replay_embedded(settings, from_block, to_block, display)
    show_replayed(done, display)
    return 0
