"""Declarations in, the generated tables of docs/*.md and whole files out; `--check` finds drift.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; the rest of a
page is written by hand. `python -m infra.docs` writes, `python -m infra.docs --check` compares.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from infra import dashboard
from infra.docs_cli import cli_reference, exit_code_table, settings_reference
from infra.docs_tables import (
    chain_proof_table,
    chain_table,
    data_dictionary,
    error_table,
    kafka_topic_table,
    metric_table,
    proof_table,
    topic_table,
)

FOLDER = Path(__file__).parent.parent / "docs"

GENERATED = {
    "chain-proofs": chain_proof_table,
    "chains": chain_table,
    "cli": cli_reference,
    "data-dictionary": data_dictionary,
    "errors": error_table,
    "exit-codes": exit_code_table,
    "kafka-topics": kafka_topic_table,
    "metrics": metric_table,
    "proofs": proof_table,
    "settings": settings_reference,
    "topics": topic_table,
}
"""Every generated part by its name."""

WHOLE_FILES = {dashboard.PATH: dashboard.dashboard}
"""Every file that is generated as a whole."""

_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def generate(page: str) -> str:
    """A page with each of its generated parts as the declarations have it now.

    Raises
    ------
    KeyError
        If the page names a part that nothing generates.
    """
    return _PART.sub(lambda found: f"{found[1]}\n{GENERATED[found[2]]()}\n{found[3]}", page)


def parts_of(page: str) -> list[str]:
    """Names of the generated parts of a page."""
    return [found[2] for found in _PART.finditer(page)]


def drift(folder: Path = FOLDER) -> dict[str, str]:
    """Pages that differ from their declarations, each with the difference."""
    found = {}
    for path, written, fresh in _versions(folder):
        if fresh != written:
            lines = difflib.unified_diff(
                written.splitlines(), fresh.splitlines(), path.name, "declared", lineterm="", n=1
            )
            found[path.name] = "\n".join(lines)
    return found


def _versions(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Each file with generated parts: its path, its text, and what its text should be."""
    for path in sorted(folder.glob("*.md")):
        written = path.read_text("utf-8")
        yield path, written, generate(written)
    if folder == FOLDER:
        for path, whole in WHOLE_FILES.items():
            yield path, path.read_text("utf-8") if path.exists() else "", whole()


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them with --check."""
    if "--check" in arguments:
        found = drift()
        for difference in found.values():
            sys.stderr.write(difference + "\n")
        if found:
            sys.stderr.write(f"{', '.join(found)}: out of date; run `make docs`\n")
            return 1
        sys.stdout.write("docs agree with the declarations\n")
        return 0
    for path, written, fresh in _versions(FOLDER):
        if fresh != written:
            path.write_text(fresh, "utf-8")
            sys.stdout.write(f"wrote {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
