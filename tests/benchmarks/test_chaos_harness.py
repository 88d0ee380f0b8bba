"""Batches that end, die, hang or are stopped in, the runs that the chaos benchmark counts out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks.chaos import Run, end_of, figures_of, kind_of, listed_in, run_all, runs_of
from tests.cluster.chaos import CHAOS
from tests.patience import PATIENCE_SECONDS

NAME = "test_chaos_ends_in_the_truth"
HANGS = "import faulthandler, time; faulthandler.enable(); print('began', flush=True)\n"
HANGS += "time.sleep(600)"


def held(number: int) -> Run:
    return Run(number, kind_of(number), str(number), 1.0, None, None)


def report_of(folder: Path, *cases: str) -> Path:
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def case(number: int, body: str = "") -> str:
    said = f"<system-out>repeat with HEADRACE_SEED={number}</system-out>"
    return f'<testcase name="{NAME}[{number}-{kind_of(number)}]" time="2">{said}{body}</testcase>'


@pytest.mark.parametrize("tag", ["failure", "error", "skipped"])
def test_a_run_that_did_not_hold_has_failed_with_its_seed(tmp_path: Path, tag: str) -> None:
    report = report_of(tmp_path, case(0), case(1, f'<{tag} message="not the truth"/>'))

    good, bad = runs_of([0, 1], report, 1, tmp_path / "0.txt")

    assert (good.said, good.seed, good.output) == (None, "0", None)
    assert (bad.said, bad.seed) == ("not the truth", "1")
    assert bad.output == str(tmp_path / "0.txt")


@pytest.mark.parametrize("report", [None, "", "<testsuites><testca"])
def test_runs_without_a_report_have_failed_with_the_seed_they_printed(
    tmp_path: Path, report: str | None
) -> None:
    output = tmp_path / "0.txt"
    output.write_text(
        f"{chaos.TEST}[0-{kind_of(0)}] repeat with HEADRACE_SEED=5\nPASSED\n"
        f"{chaos.TEST}[1-{kind_of(1)}] repeat with HEADRACE_SEED=7\n"
    )
    path = tmp_path / "report.xml"
    if report is not None:
        path.write_text(report)

    runs = runs_of([0, 1, 2], path, -9, output)

    assert [run.seed for run in runs] == ["5", "7", None]
    assert all(run.said is not None and "-9" in run.said for run in runs)


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_batch_that_stands_still_says_where_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with started(HANGS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"began\n"
        monkeypatch.setattr(chaos, "BATCH_SECONDS_MAX", 0)
        monkeypatch.setattr(chaos, "STACKS_SECONDS_MAX", PATIENCE_SECONDS)
        assert end_of(process, threading.Event()) not in (0, None)
        assert b"most recent call first" in process.stdout.read()


def test_a_batch_that_is_stopped_is_neither_good_nor_bad() -> None:
    stop = threading.Event()
    stop.set()
    with started(HANGS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"began\n"
        assert end_of(process, stop) is None


def test_a_line_that_was_cut_short_is_run_again(tmp_path: Path) -> None:
    listed = tmp_path / "runs.jsonl"
    line = json.dumps(asdict(held(0))) + "\n"
    listed.write_text(line + line[:20])

    assert listed_in(listed) == [held(0)]
    assert listed.read_text() == line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of code that does not change, with an empty list."""
    monkeypatch.setattr(chaos, "digest_of_code", lambda: tmp_path.name)
    (tmp_path / "runs.jsonl").touch()
    return tmp_path


def test_several_batches_at_once_do_each_run_once_and_go_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run_batch(numbers: list[int], _folder: Path, _stop: threading.Event) -> list[Run]:
        asked.extend(numbers)
        return [held(number) for number in numbers]

    monkeypatch.setattr(chaos, "run_batch", run_batch)
    assert len(run_all(10, None, folder, 3)) == 10
    assert sorted(asked) == list(range(10))
    assert {run.number for run in run_all(13, None, folder, 3)} == set(range(13))
    assert sorted(asked) == list(range(13))


def test_code_that_changes_under_the_runs_ends_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "run_batch", lambda numbers, *_: [held(n) for n in numbers])
    monkeypatch.setattr(chaos, "digest_of_code", lambda: "other")
    with pytest.raises(SystemExit, match="changed under the runs"):
        run_all(8, None, folder, 1)
    assert listed_in(folder / "runs.jsonl") == []


def test_the_claim_holds_only_for_enough_runs_of_every_kind_without_a_failure() -> None:
    enough = [held(number) for number in range(chaos.CLAIM_RUNS + len(CHAOS))]
    failed = Run(0, kind_of(0), "1", 1.0, "not the truth", "0.txt")

    assert figures_of(enough, 1, 1, "code")["claim_held"]
    assert not figures_of(enough[: chaos.CLAIM_RUNS - 1], 1, 1, "code")["claim_held"]
    assert not figures_of([failed, *enough[1:]], 1, 1, "code")["claim_held"]
    assert not figures_of([run for run in enough if run.kind != "poison"], 1, 1, "c")["claim_held"]
