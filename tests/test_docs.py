"""The docs against the declarations: no drift, nothing left out, no dead link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra import docs
from infra.cli import command_names
from infra.docs_tables import declared_errors, dictionary_tables
from infra.exit_codes import MEANINGS, ExitCode, exit_code_of
from schemas.metrics import METRICS

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
