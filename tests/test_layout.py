"""The house rules that a machine can check, over every module there is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ingest", "processors", "sinks", "schemas", "infra")
STAGES = ("ingest", "processors", "sinks")
IMPURE = frozenset(
    {
        *("aiohttp", "asyncio", "datetime", "http", "io", "multiprocessing", "os", "pathlib"),
        *("random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3"),
        *("ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid", "web3"),
        *("clickhouse_driver", "confluent_kafka", "faust", "prometheus_client", "requests"),
        *("pydantic_settings", "structlog", "logging", "stamina", "concurrent", "fcntl"),
    }
)
"""What a module of processors/ may not import: IO, clocks, chance, settings and logs."""

FAUST_SHELL = frozenset({"agents.py", "faust_mended.py", "faust_offsets.py"})
"""Modules of processors/ that are the Faust worker itself, and so cannot be pure."""

VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "tools", "base"})
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
MODULE_DOC = re.compile(r"\A\S.*[.)]\Z", re.DOTALL)


def modules(*packages: str) -> list[Path]:
    """Every module of the packages; of all five if none is named."""
    return sorted(path for name in packages or PACKAGES for path in (ROOT / name).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> set[str]:
    """Full names of what a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


@pytest.fixture(params=modules(), ids=named)
def module(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_a_module_says_what_flows_in_and_out(module: Path) -> None:
    doc = ast.get_docstring(ast.parse(module.read_text("utf-8")))

    assert doc, "no docstring"
    first = doc.split("\n\n")[0]
    assert MODULE_DOC.match(first), f"its docstring opens with {first!r}: one sentence is due"


def test_a_module_is_short(module: Path) -> None:
    lines = module.read_text("utf-8").count("\n")

    assert lines <= MODULE_LINES_MAX, f"{lines} lines"


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which may be as long as it is useful."""
    first = function.body[0]
    has_doc = ast.get_docstring(function, clean=False) is not None
    doc = (first.end_lineno or first.lineno) - first.lineno + 1 if has_doc else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - doc


def test_a_function_is_short(module: Path) -> None:
    long = [
        f"{node.name}: {lines_of(node)} lines"
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_of(node) > FUNCTION_LINES_MAX
    ]

    assert not long


def test_a_module_has_a_telling_name(module: Path) -> None:
    assert module.stem not in VAGUE_NAMES


def test_a_module_imports_downstream_of_nothing(module: Path) -> None:
    """`ingest → processors → sinks` import only schemas; infra alone wires them."""
    package = module.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(ast.parse(module.read_text("utf-8")))}
    ours &= set(PACKAGES) | {"tests", "benchmarks"}
    allowed = {"schemas"} if package == "schemas" else {package, "schemas"}
    if package == "infra":
        allowed = set(PACKAGES)

    assert ours <= allowed


@pytest.mark.parametrize("module", modules("processors"), ids=named)
def test_processors_are_pure(module: Path) -> None:
    names = {name.split(".")[0] for name in imports(ast.parse(module.read_text("utf-8")))}

    assert not names & IMPURE or module.name in FAUST_SHELL


def test_every_folder_with_modules_is_a_package(module: Path) -> None:
    assert (module.parent / "__init__.py").exists()


@pytest.mark.parametrize("module", modules("schemas", *STAGES), ids=named)
def test_only_infra_reads_the_environment(module: Path) -> None:
    text = module.read_text("utf-8")

    assert "os.environ" not in text
    assert "os.getenv" not in text


def test_every_type_ignore_names_its_code() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    bare = [
        f"{named(path)}:{number}"
        for path in (*modules(), *tests)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"#\s*type:\s*ignore(?!\[)", line) and path != Path(__file__)
    ]

    assert not bare


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_loaded_without_the_others(stage: str) -> None:
    """What is imported in fact, libraries included: no way around the rule above."""
    others = [name for name in (*STAGES, "infra") if name != stage]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules()
        if path.relative_to(ROOT).parts[0] == stage
        and path.name not in ("__init__.py", "__main__.py")
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print([name for name in {others!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
