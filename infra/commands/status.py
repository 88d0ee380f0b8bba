"""A data directory in, what it holds and shows out: `headrace status`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from infra.attached import attached, chain_of, http_address
from infra.clickhouse.server import RunningServer
from infra.options import ConfigOption, DataOption, JsonOption, read_settings
from infra.status import Status, read_progress, read_status
from infra.terminal import Terminal, lasted, open_terminal, show_table, sized

EXAMPLES = ("headrace status", "headrace status --data DIR --json")


def status(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show what is stored and visible: tables, canon row, lag, coverage, partitions, reorgs.

    Works while `run` is running and when it is not.
    """
    terminal = open_terminal(json=json)
    settings = read_settings(config, data_dir=data)
    chain = chain_of(settings.data_dir)
    with attached(settings.data_dir, settings.limits.server) as server:
        running = server if isinstance(server, RunningServer) else None
        progress = read_progress(settings.data_dir) if running else None
        found = read_status(http_address(server, chain), chain, progress)
    if json:
        terminal.write_json(_fields(found, running, str(settings.data_dir)))
        return 0
    _show(terminal, found, running, str(settings.data_dir))
    return 0


def _fields(found: Status, running: RunningServer | None, data_dir: str) -> dict[str, Any]:
    served = None
    if running is not None:
        served = {
            "pid": running.owner_pid,
            "host": running.host,
            "tcp_port": running.tcp_port,
            "http_port": running.http_port,
        }
    return {
        "data_dir": data_dir,
        "running": served,
        **asdict(found),
        "lag_seconds": found.lag_seconds,
        "head_lag_blocks": (found.progress or {}).get("head_lag_blocks"),
    }


def _show(terminal: Terminal, found: Status, running: RunningServer | None, data_dir: str) -> None:
    show_table(terminal, "headrace status", ("what", "value"), _summary(found, running, data_dir))
    show_table(
        terminal,
        "tables (rows as stored; the views show the visible ones)",
        ("table", "rows open", "rows sealed", "size"),
        [
            (row["name"], f"{row['rows_open']:,}", f"{row['rows_sealed']:,}", sized(row["bytes"]))
            for row in found.tables
        ],
        right=("rows open", "rows sealed", "size"),
    )
    if found.coverage:
        columns = tuple(found.coverage[0])
        rows = [tuple(row[name] for name in columns) for row in found.coverage]
        show_table(terminal, "coverage", columns, rows)
    if found.reorgs:
        show_table(
            terminal,
            "last reorgs",
            ("at", "depth", "from block", "old head", "new head"),
            [
                (
                    _time(row["at_ms"] / 1000),
                    row["depth_blocks"],
                    row["ancestor_number"] + 1,
                    row["old_head_number"],
                    row["new_head_number"],
                )
                for row in found.reorgs
            ],
        )


def _summary(
    found: Status, running: RunningServer | None, data_dir: str
) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("data directory", data_dir),
        ("chain", f"{found.chain} (id {found.chain_id})"),
    ]
    if running is not None:
        ports = f"native {running.host}:{running.tcp_port}, http {running.http_port}"
        rows.append(("running", f"pid {running.owner_pid}; ClickHouse on {ports}"))
    else:
        rows.append(("running", "no"))
    canon = found.canon
    if canon is None:
        return [*rows, ("visible", "nothing yet")]
    rows += [
        ("visible", f"{canon['floor']:,} … {canon['head']:,}"),
        ("head hash", canon["head_hash"]),
        ("safe", _block(canon["safe"])),
        ("finalized", _block(canon["finalized"])),
        ("canon row", f"{canon['generation']}:{canon['seq']} of {_time(canon['at_ms'] / 1000)}"),
        ("visible loads", canon["visible_loads"]),
        ("partitions", f"{len(found.partitions_sealed)} sealed, {len(found.partitions_open)} open"),
    ]
    if found.lag_seconds is not None:
        rows.append(("age of head", lasted(found.lag_seconds)))
    lag = (found.progress or {}).get("head_lag_blocks")
    if lag is not None:
        rows.append(("head lag", f"{lag} block(s)"))
    return rows


def _block(number: int | None) -> str:
    return "none yet" if number is None else f"{number:,}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
