"""`headrace demo --exit`: the whole tour, as a newcomer sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def tour(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", "demo", "--exit", *words],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_the_tour_shows_each_station_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = tour(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "SYNTHETIC" in lines[0]
    stations = [line for line in lines if line[:3] in ("1. ", "2. ", "3. ", "4. ")]
    assert [line[0] for line in stations] == ["1", "2", "3", "4"]
    tables = {line[2:]: at for at, line in enumerate(lines) if line.startswith("# ")}
    assert len(tables) == 6

    def rows(title: str) -> list[dict[str, str]]:
        at = tables[title]
        names = lines[at + 1].split("\t")
        found = []
        for line in lines[at + 2 :]:
            if "\t" not in line and len(names) > 1:
                break
            found.append(dict(zip(names, line.split("\t"), strict=False)))
        return found

    (totals,) = rows("Rows by table, of one legal chain at one block")
    assert int(totals["blocks"]) == int(totals["head"]) + 1 > 600
    assert int(totals["logs"]) > int(totals["erc20_transfers"]) > 1000
    assert int(totals["decode_failures"]) > 0
    assert len(rows("The most active ERC-20 tokens")) == 5
    (reorg,) = rows("What the views showed, and show now")
    assert int(reorg["depth_blocks"]) == 4
    assert reorg["old_hash"] != reorg["new_hash"]
    assert lines[tables["No row of a replaced block is left in any view"] + 2] == "0"
    states = [line.split()[1] for line in lines if line.startswith("   127.0.0.1:")]
    assert len(states) == 3
    assert states[2] == "quarantined"
    assert "quarantined" not in states[:2]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("headrace-demo-*"))


def test_the_tour_for_scripts_keeps_what_it_was_told_to_keep(tmp_path: Path) -> None:
    done = tour(tmp_path, "--json", "--data", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 6
    assert all(result["rows"] for result in results)
    assert "SYNTHETIC" in done.stderr
    assert (tmp_path / "kept" / "headrace.json").exists()
