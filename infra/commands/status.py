"""What is stored in, what it holds and shows out: `headrace status`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.options import ConfigOption, DataOption, JsonOption, read_settings
from infra.terminal import Terminal, lasted, open_terminal, show_table, sized

if TYPE_CHECKING:
    from infra.status import Status
    from infra.stored import Stored

EXAMPLES = (
    "headrace status",
    "headrace status --data DIR --json",
    "headrace status --config cluster.toml",
)


def status(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show what is stored and visible: tables, canon row, lag, coverage, partitions, reorgs.

    Works while `run` is running and when it is not. With `url` in [clickhouse], and without
    --data, it is a cluster's server that is looked at.
    """
    terminal = open_terminal(json=json)
    settings = read_settings(config, data_dir=data)
    # Heavy imports wait for their command.
    from infra.status import read_progress, read_status  # noqa: PLC0415
    from infra.stored import stored  # noqa: PLC0415

    with stored(settings, data, "status") as at:
        progress = read_progress(at.data_dir) if at.data_dir and at.running else None
        found = read_status(at.connection, at.chain, progress)
        if json:
            terminal.write_json(_fields(found, at))
        else:
            _show(terminal, found, at)
    return 0


def _fields(found: Status, at: Stored) -> dict[str, Any]:
    served, running = None, at.running
    if running is not None:
        served = {
            "pid": running.owner_pid,
            "host": running.host,
            "tcp_port": running.tcp_port,
            "http_port": running.http_port,
        }
    return {
        "data_dir": None if at.data_dir is None else str(at.data_dir),
        "clickhouse": at.place if at.data_dir is None else None,
        "running": served,
        **asdict(found),
        "lag_seconds": found.lag_seconds,
        "head_lag_blocks": (found.progress or {}).get("head_lag_blocks"),
    }


def _show(terminal: Terminal, found: Status, at: Stored) -> None:
    show_table(terminal, "headrace status", ("what", "value"), _summary(found, at))
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


def _summary(found: Status, at: Stored) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("ClickHouse" if at.data_dir is None else "data directory", at.place),
        ("chain", f"{found.chain} (id {found.chain_id})"),
    ]
    if at.running is not None:
        ports = f"native {at.running.host}:{at.running.tcp_port}, http {at.running.http_port}"
        rows.append(("running", f"pid {at.running.owner_pid}; ClickHouse on {ports}"))
    elif at.data_dir is not None:
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
    progress = found.progress or {}
    lag, age = progress.get("head_lag_blocks"), progress.get("head_age_seconds")
    if lag is not None:
        rows.append(("head lag", f"{lag} block(s)"))
    elif age is not None:
        rows.append(("head lag", f"unknown, nodes last heard {lasted(age)} ago"))
    if progress.get("warning"):
        rows.append(("warning", progress["warning"]))
    return rows


def _block(number: int | None) -> str:
    return "none yet" if number is None else f"{number:,}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
