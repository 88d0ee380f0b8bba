"""How often a broken cluster still ends in the truth: many seeded runs of every kind of chaos.

The claim: none of a hundred runs or more ends with a row lost, doubled or torn. Each run kills,
stops or confuses parts of a whole cluster while blocks come in and reorgs happen, and compares
every column of every table with the chain's truth at the end (tests/cluster/test_chaos.py).

A failed run does not end the others: it is counted as failed, and what pytest said of it is kept
beside the list of runs, with its processes' logs, in ``.cache/chaos/<digest of the code>/``.
Started again on the same code, it goes on with the runs that are not in that list, so that the
hundred can be done in several sittings (``--minutes``); ``--anew`` forgets the list. What is
recorded covers all runs in it, the failed ones with kind and seed.

A run of which pytest reports nothing is a failed run: its process died, or stood still for so long
that it was killed. Ctrl-C is none: the runs of that moment are done again. Where the code changes
under the runs, or the list cannot be written, the harness ends at once, and with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import process_tree, record
from tests.cluster.chaos import CHAOS

TEST = "tests/cluster/test_chaos.py::test_chaos_ends_in_the_truth"
SEED = re.compile(r"HEADRACE_SEED=(\d+)")
CLAIM_RUNS = 100
BATCH_RUNS = 4
"""So many runs share a broker, and a report: no more are lost if their process is."""
BATCH_SECONDS_MAX = BATCH_RUNS * 600 + 300
"""A run has ten minutes (its own limit); beyond this pytest itself hangs."""
POLL_SECONDS = 0.5
STACKS_SECONDS_MAX = 10
"""For a process that hangs to say where."""
CODE = (
    *(f"{name}/**/*.py" for name in ("infra", "ingest", "processors", "schemas", "sinks")),
    *("schemas/*.toml", "tests/*.py", "tests/cluster/*.py", "tests/e2e/*.py"),
)
"""What a run executes."""


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


def digest_of_code() -> str:
    """What the runs are runs of: every module that a run executes, as it stands on the disk."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(path for pattern in CODE for path in Path().glob(pattern)):
        digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cases_of(report: Path) -> dict[str | None, ET.Element]:
    """The runs that pytest reports; none where it did not write its report to the end."""
    try:
        return {case.get("name"): case for case in ET.parse(report).iter("testcase")}
    except (FileNotFoundError, ET.ParseError):
        return {}


def seed_in(output: Path, name: str) -> str | None:
    """The seed that a run printed before it stopped saying anything."""
    _, began, said = output.read_text(errors="replace").partition(f"[{name}]")
    seeds = SEED.findall(said.partition(f"{TEST}[")[0]) if began else []
    return seeds[0] if seeds else None


def runs_of(numbers: Sequence[int], report: Path, exit_code: int, output: Path) -> list[Run]:
    """The runs of a batch, by pytest's report; one that is not in it has failed."""
    cases, found = cases_of(report), []
    for number in numbers:
        kind = kind_of(number)
        case = cases.get(f"{TEST.split('::')[1]}[{number}-{kind}]")
        if case is None:
            said = f"pytest ended with code {exit_code} and reports nothing of this run"
            seed = seed_in(output, f"{number}-{kind}")
            found.append(Run(number, kind, seed, 0.0, said, str(output)))
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


def end_of(process: subprocess.Popen[bytes], stop: threading.Event) -> int | None:
    """Wait for the end of a batch, or bring it about; its exit code, None where it had to stop.

    A batch that hangs says first where its threads are (pytest's own faulthandler). Whatever it
    started ends with it: processes that are left would disturb the runs that follow.
    """
    until = time.monotonic() + BATCH_SECONDS_MAX
    while not stop.wait(POLL_SECONDS):
        code = process.poll()
        if code is not None:
            return code
        if time.monotonic() > until:
            break
    process.send_signal(signal.SIGSTOP)  # It starts nothing more while we look.
    started = process_tree(process.pid)
    process.send_signal(signal.SIGABRT)
    process.send_signal(signal.SIGCONT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STACKS_SECONDS_MAX)
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return None if stop.is_set() else process.wait()


def run_batch(numbers: Sequence[int], folder: Path, stop: threading.Event) -> list[Run]:
    """Run these, one after the other, on one broker; none of them where that had to stop."""
    tests = [f"{TEST}[{number}-{kind_of(number)}]" for number in numbers]
    output = folder / f"{numbers[0]}.txt"
    with tempfile.TemporaryDirectory(
        prefix="headrace-chaos-", ignore_cleanup_errors=True
    ) as scratch:
        report, runs_folder = Path(scratch) / "report.xml", Path(scratch) / "runs"
        command = [sys.executable, "-m", "pytest", "-v", *tests, f"--junitxml={report}"]
        # What is said reaches the file at once, and the report: a seed outlives its process.
        command += ["-o", "junit_logging=all", "--capture=tee-sys", "-p", "no:cacheprovider"]
        command += ["--basetemp", str(runs_folder)]
        env = {**os.environ, "HEADRACE_CHAOS_RUNS": str(numbers[-1] + 1)}
        with output.open("w") as file:
            # In a session of its own: Ctrl-C is the harness's.
            process = subprocess.Popen(
                command, env=env, stdout=file, stderr=file, start_new_session=True
            )
        exit_code = end_of(process, stop)
        if exit_code is None:
            return []
        runs = runs_of(numbers, report, exit_code, output)
        if any(run.said is not None for run in runs):
            keep_logs(runs_folder, folder / f"{numbers[0]}-logs")
        else:
            output.unlink()
    return runs


def keep_logs(runs_folder: Path, kept: Path) -> None:
    """Copy what processes logged, and their broker's topics, to where they outlive the batch."""
    for log in runs_folder.rglob("*.log"):
        if log.is_symlink() or not log.is_file():
            continue
        copy = kept / log.relative_to(runs_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, copy)


def show(run: Run) -> None:
    """A line for whoever waits."""
    verdict = "the truth" if run.said is None else f"FAILED: {run.said} (see {run.output})"
    seed = f"HEADRACE_SEED={run.seed}"
    print(f"{run.number:>4} {run.kind:<22} {run.seconds:5.0f} s  {seed:<24} {verdict}", flush=True)


def figures_of(runs: Sequence[Run], wanted: int, jobs: int, code: str) -> dict[str, Any]:
    """Runs by kind, every seed, and the failures."""
    counted = Counter(run.kind for run in runs)
    failed = [asdict(run) for run in runs if run.said is not None]
    seconds = {kind: sum(run.seconds for run in runs if run.kind == kind) for kind in counted}
    return {
        "code": code,
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


def listed_in(listed: Path) -> list[Run]:
    """The runs of earlier sittings; a line that a full disk cut short is no run."""
    text = listed.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        listed.write_text(whole)
    return [Run(**json.loads(line)) for line in whole.splitlines()]


def run_all(wanted: int, until: float | None, folder: Path, jobs: int) -> list[Run]:
    """Run what is not in the list yet, until there are so many, or the time is up."""
    listed = folder / "runs.jsonl"
    runs = listed_in(listed)
    if runs:
        print(f"going on after {len(runs)} run(s) listed in {listed}", flush=True)
    done = {run.number for run in runs}
    todo = [number for number in range(wanted) if number not in done]
    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        while not stop.is_set() and (until is None or time.monotonic() < until):
            with lock:
                batch = todo[:BATCH_RUNS]
                del todo[:BATCH_RUNS]
            if not batch:
                return
            found = run_batch(batch, folder, stop)
            with lock, listed.open("a") as file:
                for run in found:
                    show(run)
                if digest_of_code() != folder.name:
                    raise SystemExit("the code changed under the runs: run it on a tree at rest")
                file.write("".join(json.dumps(asdict(run)) + "\n" for run in found))
            runs.extend(found)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for one in as_completed([pool.submit(work) for _ in range(jobs)]):
                one.result()
        finally:
            # An error, or Ctrl-C: the other batches end, too.
            stop.set()
    return runs


def main(words: Sequence[str] | None = None) -> None:
    """Run and record; ends with 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8 * len(CHAOS), help="until there are so many")
    parser.add_argument(
        "--minutes", type=float, help=f"begin no {BATCH_RUNS} runs more after so long"
    )
    parser.add_argument("--jobs", type=int, default=1, help="batches at once, a broker each")
    parser.add_argument("--anew", action="store_true", help="forget the runs of this code")
    given = parser.parse_args(words)
    # As Ctrl-C: what was started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(".cache") / "chaos" / digest_of_code()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.jsonl").open("w" if given.anew else "a").close()
    until = None if given.minutes is None else time.monotonic() + given.minutes * 60
    runs = run_all(given.runs, until, folder, given.jobs)
    record("chaos", figures_of(runs, given.runs, given.jobs, folder.name))
    sys.exit(any(run.said is not None for run in runs))


if __name__ == "__main__":
    main()
