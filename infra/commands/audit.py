"""Stored tables in, the invariants that hold or break out: `headrace audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.display import Display
from infra.options import ConfigOption, DataOption, FromOption, JsonOption, read_settings
from infra.terminal import open_terminal

EXAMPLES = (
    "headrace audit",
    "headrace audit --from 20000000 --to 20010000 --json",
    "headrace audit --config cluster.toml",
)


def audit(
    from_block: FromOption = None,
    to_block: Annotated[
        int | None, typer.Option("--to", min=0, metavar="N", help="Last block, included.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check every invariant on what is stored; name the block and row that breaks one.

    Works while `run` is running and when it is not. Exit code 1 if an invariant is broken.
    With `url` in [clickhouse], and without --data, it is a cluster's server that is checked.
    """
    settings = read_settings(config, data_dir=data)
    from infra.audit import run_audit  # noqa: PLC0415 - heavy imports wait for their command

    display = Display(open_terminal(json=json))
    return run_audit(settings, from_block, to_block, display, data=data)
