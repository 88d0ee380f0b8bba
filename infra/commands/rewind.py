"""A block in, a visible chain that ends there out: `headrace rewind`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from infra.attached import chain_of, patient_start
from infra.display import Display
from infra.options import ConfigOption, DataOption, JsonOption, read_settings
from infra.terminal import open_terminal
from schemas.errors_roles import RewindOfCluster
from schemas.errors_settings import ConfirmationMissing

EXAMPLES = ("headrace rewind --to 20000000", "headrace rewind --to 20000000 --yes --data DIR")


def rewind(
    to_block: Annotated[
        int, typer.Option("--to", min=0, metavar="N", help="The last block that stays visible.")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Take the visible chain back to a block; the next run fetches what follows again.

    For a reorg below finality, at which `run` halts. Nothing is deleted at once: rows above the
    block are no longer visible, and swept later.
    """
    settings = read_settings(config, data_dir=data)
    if data is None and settings.clickhouse.url is not None:
        raise RewindOfCluster(to_block=to_block)
    chain_of(settings.data_dir)
    if not yes and (json or not sys.stdin.isatty()):
        raise ConfirmationMissing(to_block=to_block)

    def confirm(chain: str, head: int) -> None:
        if not yes:
            question = f"Take {chain} back from block {head:,} to block {to_block:,}?"
            typer.confirm(question, abort=True)

    from infra.rewind import run_rewind  # noqa: PLC0415 - heavy imports wait for their command

    display = Display(open_terminal(json=json))
    return patient_start(
        settings.data_dir, lambda: run_rewind(settings, to_block, display, confirm)
    )
