"""How often a broken cluster still ends in the truth: many seeded runs of every kind of chaos.

The claim: none of a hundred runs or more ends with a row lost, doubled or torn. Each run kills,
stops or confuses parts of a whole cluster while blocks come in and reorgs happen, and compares
every column of every table with the chain's truth at the end (tests/cluster/test_chaos.py).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import record

TESTS = "tests/cluster/test_chaos.py"
RUN = re.compile(r"test_chaos_ends_in_the_truth\[\d+-(?P<kind>.+)\]")
SEED = re.compile(r"HEADRACE_SEED=(\d+)")


def figures_of(report: Path) -> dict[str, Any]:
    """Runs by kind, failures with their seeds, and seconds, of pytest's report."""
    runs: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    failed = []
    for case in ET.parse(report).iter("testcase"):
        found = RUN.fullmatch(case.get("name", ""))
        if found is None:
            continue
        kind = found["kind"]
        runs[kind] += 1
        seconds[kind] = seconds.get(kind, 0.0) + float(case.get("time", "0"))
        for fault in (*case.findall("failure"), *case.findall("error"), *case.findall("skipped")):
            seeds = SEED.findall("".join(case.itertext()))
            said = (fault.get("message") or "").splitlines()[:1]
            failed.append({"kind": kind, "seed": seeds[-1] if seeds else None, "said": said})
    return {
        "runs": sum(runs.values()),
        "failed": failed,
        "runs_by_kind": dict(runs),
        "mean_seconds_by_kind": {kind: round(seconds[kind] / n, 1) for kind, n in runs.items()},
        "claim_held": sum(runs.values()) >= 100 and not failed,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=104)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--junitxml={report}"]
        command += ["-o", "junit_logging=all", "--basetemp", str(Path(scratch) / "runs")]
        command += ["-o", "tmp_path_retention_policy=failed"]
        subprocess.run(
            command, env={**os.environ, "HEADRACE_CHAOS_RUNS": str(given.runs)}, check=False
        )
        if not report.exists():
            raise SystemExit("pytest wrote no report")
        record("chaos", figures_of(report))


if __name__ == "__main__":
    main()
