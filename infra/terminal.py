"""Errors and tables in, what people or scripts read out."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra.logs import redact_text
from schemas.errors import HeadraceError

BUG_REPORT = "This is a bug. Please report it with the output of the same command with --debug."


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a command writes, and in which form."""

    out: Console
    """Results: standard output."""
    err: Console
    """Errors and notes: standard error."""
    json: bool = False
    """Whether results are JSON for a script."""
    debug: bool = False
    """Whether an unexpected error shows its traceback."""

    @property
    def live(self) -> bool:
        """Whether a person watches: rich output that changes in place."""
        return self.out.is_terminal and not self.json

    def write_json(self, value: object) -> None:
        """One line of JSON on standard output."""
        sys.stdout.write(json.dumps(value, default=str) + "\n")
        sys.stdout.flush()

    def write_line(self, text: str) -> None:
        """One plain line on standard output, never wrapped."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def open_terminal(*, json: bool = False, debug: bool = False) -> Terminal:
    """The terminal of this process; plain where it is not a TTY, or by NO_COLOR and TERM=dumb."""
    return Terminal(
        out=Console(highlight=False, soft_wrap=not sys.stdout.isatty()),
        err=Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty()),
        json=json,
        debug=debug or bool(os.environ.get("HEADRACE_DEBUG")),
    )


def show_error(terminal: Terminal, error: HeadraceError) -> None:
    """What happened, why, what to do, and the code."""
    why, fix = _sentence(error.why_text), _sentence(error.fix_text)
    if terminal.json:
        fields = {"code": error.code, "what": error.what_text, "why": why, "fix": fix}
        sys.stderr.write(json.dumps({"error": fields}) + "\n")
        return
    lines = [("why", why), ("do", fix)]
    if not terminal.err.is_terminal:
        rows = [f"  {label:<3} {text}\n" for label, text in lines if text]
        sys.stderr.write(f"error {error.code}: {error.what_text}\n" + "".join(rows))
        return
    terminal.err.print(
        Text.assemble(("error ", "bold red"), (error.code, "bold"), f": {error.what_text}")
    )
    for label, text in lines:
        if text:
            terminal.err.print(Padding(Text.assemble((f"{label:<4}", "dim"), text), (0, 0, 0, 2)))


def _sentence(text: str) -> str:
    """Declarations differ in case and full stop; what is shown does not."""
    if not text:
        return ""
    return text[:1].upper() + text[1:] + ("" if text[-1] in ".!?`" else ".")


def show_unexpected(terminal: Terminal, error: BaseException) -> None:
    """An error that nobody foresaw: a sentence, and the traceback where it was asked for."""
    if terminal.debug:
        show_trace(error)
    kind = type(error).__name__
    # Foreign text: libraries like to quote the URL that they were given.
    message = redact_text(" ".join(str(error).split()))[:300]
    if terminal.json:
        fields = {"code": "HR-0000", "what": f"{kind}: {message}", "why": "", "fix": BUG_REPORT}
        sys.stderr.write(json.dumps({"error": fields}) + "\n")
        return
    sys.stderr.write(f"unexpected error {kind}: {message}\n  {BUG_REPORT}\n")


def show_trace(error: BaseException) -> None:
    """The traceback, for --debug, without secrets."""
    sys.stderr.write(redact_text("".join(traceback.format_exception(error))))


def show_table(
    terminal: Terminal,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: Sequence[str] = (),
) -> None:
    """A table: drawn on a TTY, tab-separated lines with a heading otherwise.

    Parameters
    ----------
    terminal
        Where to write.
    title
        Its heading.
    columns
        Names of its columns.
    rows
        Cells; None shows as nothing.
    right
        Columns aligned to the right.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not terminal.out.is_terminal:
        terminal.write_line(f"# {title}")
        for row in (list(columns), *cells):
            terminal.write_line("\t".join(row))
        return
    # Not the table's own title: that is wrapped to the width of the columns.
    terminal.out.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False)
    for name in columns:
        # What is too long for the terminal goes on below: half a hash is of no use.
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    terminal.out.print(table)
    terminal.out.print()


def counted(number: float) -> str:
    """A count with grouping: ``12,345``; broken numbers below 100 keep one decimal."""
    if abs(number) < 100 and number != int(number):
        return f"{number:.1f}"
    return f"{number:,.0f}"


def sized(size_bytes: float) -> str:
    """A size in binary units: ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def lasted(seconds: float) -> str:
    """A duration: ``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
