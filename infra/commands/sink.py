"""Segments in Kafka in, rows in ClickHouse out: `headrace sink`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.options import ConfigOption, LanesOption, read_settings

EXAMPLES = (
    "headrace sink --config headrace.toml",
    "headrace sink --config headrace.toml --lanes head",
)


def sink(
    config: ConfigOption = None,
    lanes: LanesOption = None,
    accept_lost: Annotated[
        bool,
        typer.Option(
            "--accept-lost",
            metavar="",
            help="Go on after messages that retention dropped unread; ingest them again.",
        ),
    ] = False,
) -> int:
    """Cluster: load what Kafka holds into ClickHouse.

    It keeps nothing: start as many as there are partitions. Offsets are committed after the ledger,
    and what no table takes goes to dead_letters. SIGTERM drains.
    """
    settings = read_settings(config, roles__lanes=lanes)
    from infra.roles.sink import run_sink  # noqa: PLC0415 - heavy imports wait for their command

    return run_sink(settings, accept_lost=accept_lost)
