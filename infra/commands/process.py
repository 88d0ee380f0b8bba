"""Segments and heads in Kafka in, derived segments and fork updates out: `headrace process`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.options import ConfigOption, LanesOption, read_settings

EXAMPLES = (
    "headrace process --config headrace.toml --lanes history",
    "headrace process --config headrace.toml --lanes head --agents decode,aggregate,reorg",
)


def process(
    config: ConfigOption = None,
    lanes: LanesOption = None,
    agents: Annotated[
        str | None,
        typer.Option(
            "--agents",
            metavar="NAMES",
            help="Agents of this worker: decode, aggregate, and reorg on the head lane "
            "(default: all). Workers of one lane run the same ones.",
        ),
    ] = None,
    accept_lost: Annotated[
        bool,
        typer.Option(
            "--accept-lost",
            metavar="",
            help="Go on after messages that retention dropped unread; ingest them again first.",
        ),
    ] = False,
    rebuild_forks: Annotated[
        bool,
        typer.Option(
            "--rebuild-forks",
            metavar="",
            help="Make the fork states anew of the heads that Kafka keeps; once, by one worker.",
        ),
    ] = False,
) -> int:
    """Cluster: decode and aggregate the segments of one lane, and follow the heads.

    A Faust worker. It keeps nothing: start as many on a lane as there are partitions, each with
    --lanes history or --lanes head. SIGTERM drains.
    """
    settings = read_settings(config, roles__lanes=lanes, roles__agents=agents)
    from infra.roles.process import run_process  # noqa: PLC0415 - heavy imports wait for it

    return run_process(settings, accept_lost=accept_lost, rebuild_forks=rebuild_forks)
