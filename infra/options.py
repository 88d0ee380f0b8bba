"""Flags that several commands share, each declared once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from infra.settings import Settings
from infra.settings_sources import load_settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file; ./headrace.toml if it exists."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data directory (default: headrace-data)."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", metavar="", help="Results as JSON, for scripts.")
]
FromOption = Annotated[
    int | None, typer.Option("--from", min=0, metavar="N", help="First block, included.")
]
ChainOption = Annotated[
    str | None,
    typer.Option(
        "--chain",
        metavar="NAME",
        help="Chain by name; `local` takes any chain id (default: what --rpc serves).",
    ),
]
RpcOption = Annotated[
    list[str] | None,
    typer.Option("--rpc", metavar="URL", help="Endpoint; repeat for speed and failover."),
]
LanesOption = Annotated[
    str | None,
    typer.Option(
        "--lanes",
        metavar="history,head",
        help="Lanes of this process (default: both; `process` takes one).",
    ),
]


def read_settings(config: Path | None, **flags: object) -> Settings:
    """The settings of this process, with flags over environment over file."""
    return load_settings(config, flags, _environ())


def _environ() -> Mapping[str, str]:
    return os.environ
