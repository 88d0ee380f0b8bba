"""A synthetic chain in, a tour with results out: `headrace demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.display import Display
from infra.options import JsonOption
from infra.terminal import open_terminal

EXAMPLES = ("headrace demo", "headrace demo --exit")


def demo(
    leave: Annotated[
        bool, typer.Option("--exit", metavar="", help="End after the tour instead of staying up.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Data directory, kept (default: a temporary one, removed).",
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show the whole on a synthetic chain: no node, no key, no network needed.

    Starts a devchain, indexes it, runs sample queries, shows a reorg and a lying provider, and
    stays up for your own queries until Ctrl-C.
    """
    from infra.demo import run_demo  # noqa: PLC0415 - heavy imports wait for their command

    return run_demo(Display(open_terminal(json=json)), data_dir=data, leave=leave)
