"""How often a broken cluster still ends in the truth: many seeded runs of every kind of chaos.

The claim: none of a hundred runs or more ends with a row lost, doubled or torn. Each run kills,
stops or confuses parts of a whole cluster while blocks come in and reorgs happen, and compares
every column of every table with the chain's truth at the end (tests/cluster/test_chaos.py).

A failed run does not end the others: it is counted as failed, and what pytest said of it is kept
beside the list of runs, in ``.cache/chaos/<commit>/``. Started again at the same commit, it goes on
with the runs that are not in that list, so that the hundred can be done in several sittings
(``--minutes``); ``--anew`` forgets the list. What is recorded covers all runs in it, the failed
ones with kind and seed; a run of which pytest reports nothing is a failed run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, record
from tests.cluster.chaos import CHAOS

TEST = "tests/cluster/test_chaos.py::test_chaos_ends_in_the_truth"
SEED = re.compile(r"HEADRACE_SEED=(\d+)")
CLAIM_RUNS = 100
BATCH_RUNS = 4
"""So many runs share a broker, and a report: no more are lost if their process is."""
BATCH_SECONDS_MAX = BATCH_RUNS * 600 + 300
"""A run has ten minutes (its own limit); beyond this pytest itself hangs."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one run."""

    number: int
    """Which it was; the kinds come in turn."""
    kind: str
    """Kind of chaos."""
    seed: str | None
    """What repeats its dice; None where the run was not reported."""
    seconds: float
    """How long it took."""
    said: str | None
    """The first line of why it failed; None for a run that ended in the truth."""
    output: str | None
    """The file that holds all that was said; None for a run that ended in the truth."""


def kind_of(number: int) -> str:
    """The kind of a run, as the tests deal them."""
    return list(CHAOS)[number % len(CHAOS)]


def runs_of(numbers: Sequence[int], report: Path, exit_code: int, output: Path) -> list[Run]:
    """The runs of a batch, by pytest's report; one that is not in it has failed."""
    cases = {}
    if report.exists():
        cases = {case.get("name"): case for case in ET.parse(report).iter("testcase")}
    found = []
    for number in numbers:
        kind = kind_of(number)
        case = cases.get(f"{TEST.split('::')[1]}[{number}-{kind}]")
        if case is None:
            said = f"pytest ended with code {exit_code} and reports nothing of this run"
            found.append(Run(number, kind, None, 0.0, said, str(output)))
            continue
        # A skipped run has shown nothing, so it is none that held.
        faults = [fault for tag in ("failure", "error", "skipped") for fault in case.findall(tag)]
        said = "; ".join((fault.get("message") or fault.tag).split("\n")[0] for fault in faults)
        seeds = SEED.findall("".join(case.itertext()))
        found.append(
            Run(
                number,
                kind,
                seeds[-1] if seeds else None,
                float(case.get("time", "0")),
                said or None,
                str(output) if faults else None,
            )
        )
    return found


def run_batch(numbers: Sequence[int], folder: Path) -> list[Run]:
    """Run these, one after the other, on one broker."""
    tests = [f"{TEST}[{number}-{kind_of(number)}]" for number in numbers]
    output = folder / f"{numbers[0]}.txt"
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as scratch, output.open("w") as file:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-v", *tests, f"--junitxml={report}"]
        command += ["-o", "junit_logging=all", "--basetemp", str(Path(scratch) / "runs")]
        env = {**os.environ, "HEADRACE_CHAOS_RUNS": str(numbers[-1] + 1)}
        try:
            exit_code = subprocess.run(
                command, env=env, stdout=file, stderr=file, timeout=BATCH_SECONDS_MAX, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            exit_code = -1
        runs = runs_of(numbers, report, exit_code, output)
    if all(run.said is None for run in runs):
        output.unlink()
    return runs


def show(run: Run) -> None:
    """A line for whoever waits."""
    verdict = "the truth" if run.said is None else f"FAILED: {run.said} (see {run.output})"
    seed = f"HEADRACE_SEED={run.seed}"
    print(f"{run.number:>4} {run.kind:<22} {run.seconds:5.0f} s  {seed:<24} {verdict}", flush=True)


def figures_of(runs: Sequence[Run], wanted: int, jobs: int) -> dict[str, Any]:
    """Runs by kind, every seed, and the failures."""
    counted = Counter(run.kind for run in runs)
    failed = [asdict(run) for run in runs if run.said is not None]
    seconds = {kind: sum(run.seconds for run in runs if run.kind == kind) for kind in counted}
    return {
        "runs": len(runs),
        "runs_wanted": wanted,
        "batches_at_once": jobs,
        "failed": len(failed),
        "failures": failed,
        "runs_by_kind": {kind: counted[kind] for kind in CHAOS},
        "seeds_by_kind": {kind: [run.seed for run in runs if run.kind == kind] for kind in CHAOS},
        "mean_seconds_by_kind": {kind: round(seconds[kind] / counted[kind], 1) for kind in counted},
        "claim_held": len(runs) >= CLAIM_RUNS and counted.keys() == CHAOS.keys() and not failed,
    }


def run_all(wanted: int, until: float | None, folder: Path, jobs: int) -> list[Run]:
    """Run what is not in the list yet, until there are so many, or the time is up."""
    listed = folder / "runs.jsonl"
    runs = [Run(**json.loads(line)) for line in listed.read_text().splitlines()]
    if runs:
        print(f"going on after {len(runs)} run(s) listed in {listed}", flush=True)
    done = {run.number for run in runs}
    todo = [number for number in range(wanted) if number not in done]
    lock = threading.Lock()

    def work() -> None:
        while until is None or time.monotonic() < until:
            with lock:
                batch = todo[:BATCH_RUNS]
                del todo[:BATCH_RUNS]
            if not batch:
                return
            found = run_batch(batch, folder)
            with lock, listed.open("a") as file:
                for run in found:
                    show(run)
                    runs.append(run)
                    file.write(json.dumps(asdict(run)) + "\n")

    with ThreadPoolExecutor(jobs) as pool:
        for one in [pool.submit(work) for _ in range(jobs)]:
            one.result()
    return runs


def main(words: Sequence[str] | None = None) -> None:
    """Run and record; ends with 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8 * len(CHAOS), help="until there are so many")
    parser.add_argument(
        "--minutes", type=float, help=f"begin no {BATCH_RUNS} runs more after so long"
    )
    parser.add_argument("--jobs", type=int, default=1, help="batches at once, a broker each")
    parser.add_argument("--anew", action="store_true", help="forget the runs of this commit")
    given = parser.parse_args(words)
    folder = Path(".cache") / "chaos" / commit()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.jsonl").open("w" if given.anew else "a").close()
    until = None if given.minutes is None else time.monotonic() + given.minutes * 60
    runs = run_all(given.runs, until, folder, given.jobs)
    record("chaos", figures_of(runs, given.runs, given.jobs))
    sys.exit(any(run.said is not None for run in runs))


if __name__ == "__main__":
    main()
