"""Progress snapshots in, a live display or plain lines out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.metrics_export import MetricsExport
from infra.ports import HOST
from infra.progress import HEAD_OLD_SECONDS, Progress, ProviderProgress, Rates, RateWindow
from infra.status import write_progress
from infra.terminal import Terminal, counted, lasted, sized

LIVE_SECONDS = 0.25
LINE_SECONDS = 5.0
JSON_SECONDS = 1.0
STATUS_SECONDS = 1.0
PROVIDERS_SHOWN_MAX = 8
REORGS_SHOWN_MAX = 3

_STATE_STYLES = {
    "ok": "green",
    "limited": "yellow",
    "slow": "yellow",
    "failing": "red",
    "quarantined": "bold red",
}


class Display:
    """Shows a run: in place on a TTY, a line now and then otherwise, JSON lines for scripts."""

    def __init__(
        self,
        terminal: Terminal,
        interval_seconds: float | None = None,
        *,
        data_dir: Path | None = None,
        metrics_port: int | None = None,
    ) -> None:
        self.terminal = terminal
        self.metrics = MetricsExport()
        self._data_dir, self._metrics_port = data_dir, metrics_port
        default = LIVE_SECONDS if terminal.live else LINE_SECONDS
        default = JSON_SECONDS if terminal.json else default
        self.interval_seconds = default if interval_seconds is None else interval_seconds
        self._window = RateWindow()
        self._live: Live | None = None
        self._last_line = ""

    async def watch(self, snapshot: Callable[[], Progress]) -> None:
        """Show a snapshot each interval until cancelled; the last state is shown at the end.

        Meanwhile snapshots are left in the data directory for `headrace status`, and served to
        Prometheus, where the display was given a directory and a port.
        """
        leaving = asyncio.ensure_future(self._leave(snapshot)) if self._data_dir else None
        try:
            with contextlib.ExitStack() as stack:
                if self._metrics_port is not None:
                    port = stack.enter_context(self.metrics.served(self._metrics_port, snapshot))
                    self.note(f"metrics: http://{HOST}:{port}/metrics")
                await self._watch(snapshot)
        finally:
            if leaving is not None:
                leaving.cancel()

    async def _leave(self, snapshot: Callable[[], Progress]) -> None:
        window = RateWindow()
        while self._data_dir is not None:
            progress = snapshot()
            with contextlib.suppress(OSError):
                # A full disk stops the sinks with a code of its own; a display must not.
                write_progress(self._data_dir, progress_fields(progress, window.add(progress)))
            await asyncio.sleep(STATUS_SECONDS)

    async def _watch(self, snapshot: Callable[[], Progress]) -> None:
        if not self.terminal.live:
            try:
                while True:
                    self.show(snapshot())
                    await asyncio.sleep(self.interval_seconds)
            finally:
                self.show(snapshot())
            return
        with Live(console=self.terminal.out, auto_refresh=False, transient=False) as live:
            self._live = live
            try:
                while True:
                    self.show(snapshot())
                    await asyncio.sleep(self.interval_seconds)
            finally:
                self.show(snapshot())
                self._live = None

    def show(self, progress: Progress) -> None:
        """Show one snapshot."""
        rates = self._window.add(progress)
        if self.terminal.json:
            self.terminal.write_json(progress_fields(progress, rates))
        elif self._live is not None:
            # Room at the right for the ^C that a terminal echoes: in the last column it would
            # wrap, and the panel that replaces this one would be drawn a line too low.
            width = max(40, self.terminal.out.width - len("^C^C"))
            self._live.update(render_progress(progress, rates, width), refresh=True)
        else:
            line = progress_line(progress, rates)
            if line != self._last_line:
                self.terminal.write_line(line)
                self._last_line = line

    def note(self, text: str, style: str = "") -> None:
        """A line that stays, above the live display; on standard error for scripts."""
        if self.terminal.json:
            self.terminal.err.print(text)
        elif self.terminal.live:
            # What is indented stays so where it wraps.
            start = text.lstrip(" ")
            self.terminal.out.print(
                Padding(Text(start, style=style), (0, 0, 0, len(text) - len(start)), expand=False)
            )
        else:
            self.terminal.write_line(text)


def render_progress(progress: Progress, rates: Rates, width: int | None = None) -> RenderableType:
    """The live display of one snapshot."""
    parts: list[RenderableType] = [_headline(progress, rates)]
    if progress.total_blocks:
        parts.append(
            ProgressBar(total=progress.total_blocks, completed=progress.done_blocks, width=60)
        )
    parts += [Text(), _stage_table(progress, rates)]
    if progress.providers:
        parts += [Text(), _provider_table(progress)]
    for reorg in progress.reorgs[-REORGS_SHOWN_MAX:]:
        parts.append(
            Text(
                f"reorg  {reorg.at}  {reorg.depth_blocks} block(s) replaced"
                f" from {reorg.block_number:,}",
                style="yellow",
            )
        )
    trouble = _trouble(progress)
    if trouble:
        parts.append(Text(trouble, style="yellow"))
    if progress.note:
        parts.append(Text(progress.note, style="dim"))
    title = f"headrace · {progress.chain}" + (" · SYNTHETIC" if progress.synthetic else "")
    return Panel(Group(*parts), title=title, title_align="left", border_style="blue", width=width)


def progress_line(progress: Progress, rates: Rates) -> str:
    """One plain line for one snapshot."""
    words = [f"{progress.chain}{' (synthetic)' if progress.synthetic else ''}", progress.phase]
    words += _position(progress, rates)
    for stage in progress.stages:
        rate = rates.stages.get(stage.name)
        if rate is not None:
            speed = f"{counted(rate.blocks_per_second)} blocks/s"
            words.append(f"{stage.name} {speed} {counted(rate.logs_per_second)} logs/s")
    unwell = [f"{one.name} {one.state}" for one in progress.providers if one.state != "ok"]
    words += unwell
    if progress.reorg_count:
        words.append(f"{progress.reorg_count} reorg(s)")
    trouble = _trouble(progress)
    if trouble:
        words.append(trouble)
    return " | ".join(words)


def progress_fields(progress: Progress, rates: Rates) -> dict[str, object]:
    """The fields of one snapshot for scripts."""
    fields = asdict(progress)
    fields["head_lag_blocks"] = progress.head_lag_blocks
    fields["eta_seconds"] = rates.eta_seconds
    for stage in fields["stages"]:
        rate = rates.stages.get(stage["name"])
        stage["blocks_per_second"] = rate.blocks_per_second if rate else None
        stage["logs_per_second"] = rate.logs_per_second if rate else None
    return fields


def _position(progress: Progress, rates: Rates) -> list[str]:
    words = []
    if progress.total_blocks and progress.done_blocks < progress.total_blocks:
        share = progress.done_blocks / progress.total_blocks
        words.append(f"{progress.done_blocks:,}/{progress.total_blocks:,} blocks ({share:.1%})")
        if rates.eta_seconds is not None:
            words.append(f"ETA {lasted(rates.eta_seconds)}")
    if progress.visible_block is not None:
        words.append(f"queryable to {progress.visible_block:,}")
    if progress.phase in ("head", "backfill") and progress.head_lag_blocks is not None:
        words.append(f"head lag {progress.head_lag_blocks:,}")
    elif progress.phase == "head" and progress.head_block is not None:
        heard = lasted(progress.head_age_seconds)
        words.append(f"head lag unknown, nodes last heard {heard} ago")
    return words


def _headline(progress: Progress, rates: Rates) -> Text:
    words = [progress.phase, *_position(progress, rates)]
    if progress.finalized_block is not None:
        words.append(f"final to {progress.finalized_block:,}")
    if progress.memory_bytes:
        words.append(f"memory {sized(progress.memory_bytes)}")
    text = Text("  ·  ".join(words))
    text.stylize("bold", 0, len(words[0]))
    return text


def _stage_table(progress: Progress, rates: Rates) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    for name in ("blocks", "blocks/s", "logs", "logs/s", "waiting"):
        table.add_column(name, justify="right", min_width=9)
    for stage in progress.stages:
        rate = rates.stages.get(stage.name)
        table.add_row(
            stage.name,
            counted(stage.blocks),
            counted(rate.blocks_per_second) if rate else "",
            counted(stage.logs),
            counted(rate.logs_per_second) if rate else "",
            sized(stage.queue_bytes),
        )
    return table


def _provider_table(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("provider")
    table.add_column("health")
    for name in ("calls", "errors", "head"):
        table.add_column(name, justify="right", min_width=7)
    table.add_column("")
    for one in progress.providers[:PROVIDERS_SHOWN_MAX]:
        table.add_row(
            Text(one.name),
            Text(one.state, style=_STATE_STYLES[one.state]),
            counted(one.calls),
            counted(one.errors),
            _head_of(one),
            Text(one.note, style="dim"),
        )
    hidden = len(progress.providers) - PROVIDERS_SHOWN_MAX
    if hidden > 0:
        table.add_row(f"… {hidden} more")
    return table


def _head_of(one: ProviderProgress) -> str:
    """An endpoint's head, with its age where it is not of now."""
    if one.head is None:
        return ""
    age = one.head_age_seconds or 0.0
    return f"{one.head:,}" + (f" ({lasted(age)} ago)" if age > HEAD_OLD_SECONDS else "")


def _trouble(progress: Progress) -> str:
    words = [progress.warning] if progress.warning else []
    if progress.decode_failures:
        words.append(f"{progress.decode_failures:,} undecodable log(s), see decode_failures")
    if progress.dead_letters:
        words.append(f"{progress.dead_letters:,} dead letter(s)")
    return ", ".join(words)
