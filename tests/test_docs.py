"""The docs against the declarations: no drift, nothing left out, no dead link."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from infra import docs
from infra.cli import build_app, command_names
from infra.contracts import declare_contracts
from infra.docs_tables import declared_errors, dictionary_tables
from infra.exit_codes import MEANINGS, ExitCode, exit_code_of
from infra.settings_sources import load_settings
from schemas.codec import encode_log_segment
from schemas.columns import ColumnBlock, from_python
from schemas.metrics import METRICS
from schemas.segments import LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Verification, empty_block

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def test_generated_parts_agree_with_their_declarations() -> None:
    assert docs.drift() == {}


def test_drift_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: metrics -->\nold\n<!-- end -->\n")

    assert list(docs.drift(tmp_path)) == ["page.md"]

    page.write_text(docs.generate(page.read_text()))

    assert docs.drift(tmp_path) == {}
    assert METRICS[0].name in page.read_text()


def test_every_generated_part_stands_in_a_page() -> None:
    placed = [name for page in PAGES for name in docs.parts_of(page.read_text("utf-8"))]

    assert sorted(placed) == sorted(docs.GENERATED)


def test_every_error_is_explained_whole() -> None:
    for code, error in declared_errors().items():
        assert re.fullmatch(r"HR-\d{4}", code)
        assert error.what
        assert error.why, f"{code} says no why"
        assert error.fix, f"{code} says not what to do"
        assert exit_code_of(error) not in (ExitCode.ok, ExitCode.interrupted)


def test_errors_are_declared_in_schemas_only() -> None:
    """Elsewhere the reference would not list them."""
    strangers = [
        path.relative_to(ROOT)
        for package in ("ingest", "processors", "sinks", "infra")
        for path in (ROOT / package).rglob("*.py")
        if 'code = "HR-' in path.read_text("utf-8")
    ]

    assert not strangers


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_every_column_is_described() -> None:
    for table in dictionary_tables():
        assert table.doc
        for column in table.columns:
            assert column.doc, f"{table.name}.{column.name}"
            assert column.proven_by, f"{table.name}.{column.name}"


def test_every_command_is_in_the_readme_or_its_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for name in command_names():
        assert f"### `headrace {name}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_codes_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`((?:ingest|processors|sinks|schemas|infra)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name
    for code in re.findall(r"HR-\d{4}", text):
        assert code in declared_errors(), code
    for target in re.findall(r"`make ([a-z]+)", text):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "text", [text for page in PAGES for text in blocks_of(page, "toml")], ids=lambda text: text[:20]
)
def test_settings_that_a_page_shows_are_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "abis").mkdir()
    entry = {"type": "event", "name": "Ping", "inputs": []}
    (tmp_path / "abis" / "vault.json").write_text(json.dumps([entry]))
    (tmp_path / "headrace.toml").write_text(text)

    settings = load_settings(tmp_path / "headrace.toml", {}, {})

    assert settings.rpc
    assert len(declare_contracts(settings)) == len(settings.contracts)


def test_commands_that_a_page_shows_exist() -> None:
    group: Any = typer.main.get_command(build_app())
    for page in PAGES:
        for text in blocks_of(page, "console"):
            for line in text.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:1] == ["headrace"]:
                    flags = {flag for one in group.commands[words[1]].params for flag in one.opts}
                    assert {word for word in words if word.startswith("--")} <= flags, line


def test_the_reader_that_the_docs_show_reads_our_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = blocks_of(ROOT / "docs" / "messages.md", "python")
    scope: dict[str, Any] = {}
    exec(code, scope)
    logs = empty_block(LOGS)
    rows = {name: [0, 0] for name in logs.columns}
    rows |= {"block_number": [5, 6], "data": [b"ab", b""], "address": [b"\1" * 20, b"\2" * 20]}
    for name in logs.columns:
        kind = LOGS.column(name).kind
        if kind.text.startswith("?"):
            rows[name] = [None, None]
        elif kind.shape == "fixed" and rows[name] == [0, 0]:
            rows[name] = [b"\0" * kind.width] * 2
        logs.columns[name] = from_python(kind, rows[name])
    segment = LogSegment(
        name=SegmentName(1, "logs", "history", 5, 6, b"\3" * 32, "0" * 16),
        observed_at_ms=1,
        level=Verification.receipts,
        proven=(),
        unproven=(),
        headers=empty_block(HEADER_REFS),
        logs=ColumnBlock("logs", 2, logs.columns),
    )

    read = list(scope["read_logs"](encode_log_segment(segment)))

    assert read == [(5, b"\1" * 20, b"ab"), (6, b"\2" * 20, b"")]
