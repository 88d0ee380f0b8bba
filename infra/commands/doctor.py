"""A machine and its endpoints in, what would keep a run from working out: `headrace doctor`."""

from __future__ import annotations

from dataclasses import asdict

from rich.text import Text

from infra.doctor import Check, run_checks
from infra.exit_codes import ExitCode
from infra.options import (
    ChainOption,
    ConfigOption,
    DataOption,
    JsonOption,
    RpcOption,
    read_settings,
)
from infra.terminal import Terminal, open_terminal

EXAMPLES = ("headrace doctor", "headrace doctor --chain base --rpc https://rpc.example/KEY")

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def doctor(
    config: ConfigOption = None,
    chain: ChainOption = None,
    rpc: RpcOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check machine, engine, data directory and endpoints; say how to fix what fails.

    Exit code 1 if a check fails; warnings alone do not.
    """
    terminal = open_terminal(json=json)
    settings = read_settings(config, chain=chain, rpc=rpc, data_dir=data)
    checks = []
    for check in run_checks(settings):
        checks.append(check)
        if not json:
            _show(terminal, check)
    failed = sum(check.state == "fail" for check in checks)
    if json:
        terminal.write_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        terminal.write_line(f"{failed} of {len(checks)} checks failed" if failed else "all well")
    return int(ExitCode.failed if failed else ExitCode.ok)


def _show(terminal: Terminal, check: Check) -> None:
    mark, style = _MARKS[check.state]
    if not terminal.out.is_terminal:
        terminal.write_line(f"{mark} {check.name}: {check.found}")
    else:
        terminal.out.print(Text.assemble((mark, style), f" {check.name}: {check.found}"))
    if check.fix:
        terminal.write_line(f"     do: {check.fix}")
