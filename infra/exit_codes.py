"""An error in, the exit code of the process out."""

from __future__ import annotations

from enum import IntEnum

from schemas.errors import HeadraceError


class ExitCode(IntEnum):
    """What the process's exit code says; scripts may rely on it."""

    ok = 0
    """Done, or nothing to do."""
    failed = 1
    """A check failed (`doctor`, `audit`, `local status`), or something unexpected happened."""
    usage = 2
    """The command line, the settings or the query must be corrected."""
    network = 3
    """No endpoint could serve what was asked."""
    storage = 4
    """The data directory, ClickHouse or Kafka failed."""
    halted = 5
    """The data contradict themselves or the chain; nothing doubtful was shown."""
    interrupted = 130
    """Ctrl-C; what was done is kept."""


MEANINGS = {
    ExitCode.ok: "done",
    ExitCode.failed: "a check of `doctor` or `audit` failed, a process of `local status` is not "
    "ready, or something unexpected happened",
    ExitCode.usage: "the command line, the settings or the query must be corrected",
    ExitCode.network: "no endpoint could serve what was asked; run again to go on",
    ExitCode.storage: "the data directory, ClickHouse or Kafka failed",
    ExitCode.halted: "halted: data contradict the chain, and nothing doubtful was shown",
    ExitCode.interrupted: "Ctrl-C; what was done is kept",
}
"""Meanings for the documentation."""

_BY_PREFIX = {
    "HR-1": ExitCode.usage,
    "HR-2": ExitCode.network,
    "HR-3": ExitCode.halted,
    "HR-4": ExitCode.storage,
    "HR-5": ExitCode.storage,
    "HR-6": ExitCode.storage,
    # The server given by hand, and a directory that holds nothing, are storage.
    "HR-1023": ExitCode.storage,
    "HR-1030": ExitCode.storage,
    # What the user typed.
    "HR-6201": ExitCode.usage,
    "HR-6102": ExitCode.usage,
    "HR-6301": ExitCode.usage,
    "HR-6302": ExitCode.usage,
    "HR-6304": ExitCode.halted,
    "HR-6309": ExitCode.usage,
    "HR-6311": ExitCode.usage,
    "HR-6312": ExitCode.usage,
    "HR-6313": ExitCode.usage,
    "HR-6314": ExitCode.usage,
    "HR-2001": ExitCode.usage,
    "HR-2053": ExitCode.usage,
    "HR-2054": ExitCode.usage,
    "HR-4020": ExitCode.usage,
    "HR-31": ExitCode.usage,
    "HR-4501": ExitCode.usage,
    "HR-5101": ExitCode.usage,
    "HR-4502": ExitCode.usage,
    "HR-4503": ExitCode.usage,
    # A proof failed, and nobody could give an answer that passes it.
    "HR-22": ExitCode.halted,
    "HR-2051": ExitCode.halted,
    "HR-2056": ExitCode.halted,
    "HR-4505": ExitCode.halted,
    "HR-4506": ExitCode.halted,
    # Messages or states are gone, or a chain halted: an operator decides.
    "HR-6101": ExitCode.halted,
    "HR-6202": ExitCode.halted,
    "HR-6203": ExitCode.halted,
    "HR-6204": ExitCode.halted,
    "HR-6205": ExitCode.halted,
    "HR-6402": ExitCode.usage,
    "HR-6403": ExitCode.halted,
    "HR-6404": ExitCode.halted,
    # A reorg below finality, found when a run begins.
    "HR-5103": ExitCode.halted,
    "HR-5105": ExitCode.halted,
}
"""Exit codes by the longest prefix of the error's code."""


def exit_code_of(error: HeadraceError | type[HeadraceError]) -> ExitCode:
    """The exit code for an error that ends the process."""
    fitting = [prefix for prefix in _BY_PREFIX if error.code.startswith(prefix)]
    return _BY_PREFIX[max(fitting, key=len)] if fitting else ExitCode.failed
