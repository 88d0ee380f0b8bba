"""Snapshots into rates, lines and a live display."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.display import Display, progress_fields, progress_line, render_progress
from infra.health import provider_progress
from infra.progress import (
    Progress,
    ProviderProgress,
    Rates,
    RateWindow,
    ReorgNotice,
    StageProgress,
    rates_between,
)
from infra.status import read_progress
from infra.terminal import Terminal, counted, lasted, show_table, sized
from ingest.endpoint import EndpointHealth, Quarantine

START = Progress(
    at_seconds=100.0,
    chain="base",
    phase="backfill",
    from_block=0,
    to_block=999,
    done_blocks=100,
    total_blocks=1000,
    visible_block=99,
    head_block=2000,
    stages=(StageProgress("ingest", 200, 5000), StageProgress("load", 100, 2000)),
    providers=(ProviderProgress("node#1"), ProviderProgress("liar#2", "quarantined", note="lied")),
    reorgs=(ReorgNotice(990, 2, "10:00:00"),),
    reorg_count=1,
)
LATER = replace(
    START,
    at_seconds=110.0,
    done_blocks=200,
    visible_block=199,
    stages=(StageProgress("ingest", 400, 10000), StageProgress("load", 200, 4000)),
)


def terminal(tty: bool = False, json: bool = False) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=tty, width=100, color_system=None)
    return Terminal(out=console, err=console, json=json), out


def test_rates_and_eta_follow_from_two_snapshots() -> None:
    rates = rates_between(START, LATER)

    assert rates.stages["ingest"].blocks_per_second == 20
    assert rates.stages["ingest"].logs_per_second == 500
    assert rates.eta_seconds == 80


def test_there_is_no_eta_without_progress() -> None:
    assert rates_between(START, replace(START, at_seconds=101.0)).eta_seconds is None
    assert rates_between(START, START) == Rates({}, None)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.integers(0, 1000)), min_size=1, max_size=60))
def test_the_window_stays_short_and_rates_stay_positive(steps: list[tuple[float, int]]) -> None:
    window = RateWindow(seconds=10.0)
    at, done = 0.0, 0
    for seconds, blocks in steps:
        at, done = at + seconds, done + blocks
        rates = window.add(replace(START, at_seconds=at, done_blocks=done, total_blocks=10**9))
        assert rates.eta_seconds is None or rates.eta_seconds > 0
        assert len(window.snapshots) <= 2 or at - window.snapshots[1].at_seconds < 10.0 + 1e-9


def test_a_line_says_all_that_matters() -> None:
    line = progress_line(LATER, rates_between(START, LATER))

    assert line == (
        "base | backfill | 200/1,000 blocks (20.0%) | ETA 1 min 20 s | queryable to 199 | "
        "head lag 1,801 | ingest 20 blocks/s 500 logs/s | load 10 blocks/s 200 logs/s | "
        "liar#2 quarantined | 1 reorg(s)"
    )


def test_the_live_display_shows_stages_providers_and_reorgs() -> None:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(render_progress(LATER, rates_between(START, LATER)))
    shown = console.export_text()

    for text in ("base", "20.0%", "ingest", "500", "liar#2", "quarantined", "lied", "from 990"):
        assert text in shown


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_synthetic_chain_is_called_so(synthetic: bool) -> None:
    progress = replace(START, synthetic=synthetic)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_progress(progress, Rates({}, None)))

    assert ("SYNTHETIC" in console.export_text()) is synthetic
    assert ("synthetic" in progress_line(progress, Rates({}, None))) is synthetic


def test_trouble_is_said() -> None:
    progress = replace(START, decode_failures=3, dead_letters=2)

    line = progress_line(progress, Rates({}, None))

    assert "3 undecodable log(s)" in line
    assert "2 dead letter(s)" in line


def test_fields_for_scripts_are_json() -> None:
    fields = json.loads(json.dumps(progress_fields(LATER, rates_between(START, LATER))))

    assert fields["head_lag_blocks"] == 1801
    assert fields["stages"][0]["blocks_per_second"] == 20
    assert fields["eta_seconds"] == 80


async def watch(display: Display) -> None:
    """Watch until three snapshots were taken."""
    taken = 0
    enough = asyncio.Event()

    def snapshot() -> Progress:
        nonlocal taken
        taken += 1
        if taken >= 3:
            enough.set()
        return replace(LATER, at_seconds=110.0 + taken, done_blocks=200 + taken)

    task = asyncio.ensure_future(display.watch(snapshot))
    await enough.wait()
    display.note("a note [that] stays")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_plain_lines_without_a_tty(capsys: pytest.CaptureFixture[str]) -> None:
    await watch(Display(terminal()[0], interval_seconds=0.001))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("base | backfill | 201/1,000")
    assert "a note [that] stays" in lines


async def test_json_lines_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    await watch(Display(terminal(json=True)[0], interval_seconds=0.001))

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["done_blocks"] == 201


async def test_the_display_lives_on_a_tty() -> None:
    shown, out = terminal(tty=True)
    await watch(Display(shown, interval_seconds=0.001))

    assert "headrace · base" in out.getvalue()
    assert "a note [that] stays" in out.getvalue()


def test_an_indented_note_stays_indented_where_it_wraps() -> None:
    shown, out = terminal(tty=True)
    Display(shown).note("   " + "word " * 30)

    lines = [line for line in out.getvalue().splitlines() if line]
    assert [line[:4] for line in lines] == ["   w", "   w"]


def test_a_table_cuts_nothing_off() -> None:
    shown, out = terminal(tty=True)
    show_table(shown, "hashes", ("one", "other"), [("a" * 66, "b" * 66)])

    body = out.getvalue().split("other")[1]
    assert (body.count("a"), body.count("b"), "…" in body) == (66, 66, False)


async def test_status_finds_the_last_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However late it is looked for.
    monkeypatch.setattr("infra.status.PROGRESS_AGE_SECONDS_MAX", 3600.0)
    (tmp_path / "run").mkdir()
    await watch(Display(terminal()[0], interval_seconds=0.001, data_dir=tmp_path))

    found = read_progress(tmp_path)
    assert found is not None
    assert found["head_lag_blocks"] == 1801
    (tmp_path / "run" / "progress.json").write_text('{"written_at": 5}')
    assert read_progress(tmp_path) is None
    (tmp_path / "run" / "progress.json").write_text("{")
    assert read_progress(tmp_path) is None


HEALTH = EndpointHealth(
    name="node#1",
    in_flight=1,
    limit=4,
    calls_per_second=None,
    latency_seconds=0.1,
    answers=5,
    errors=0,
    bytes_received=10,
    head=7,
    head_age_seconds=1.0,
    last_error="",
    quarantined=None,
    paused_seconds=0.0,
)


@pytest.mark.parametrize(
    ("health", "state"),
    [
        (HEALTH, "ok"),
        (replace(HEALTH, latency_seconds=9.0), "slow"),
        (replace(HEALTH, paused_seconds=2.0, last_error="HR-2002"), "failing"),
        (replace(HEALTH, paused_seconds=2.0, calls_per_second=3.0), "limited"),
        (replace(HEALTH, quarantined=Quarantine("HR-2220", "lied", 0, 1.0)), "quarantined"),
    ],
)
def test_health_is_one_word(health: EndpointHealth, state: str) -> None:
    shown = provider_progress(health)

    assert shown.state == state
    assert shown.calls == 5


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (counted(1234567), "1,234,567"),
        (counted(12.34), "12.3"),
        (counted(5.0), "5"),
        (sized(0), "0 B"),
        (sized(1536), "1.5 KiB"),
        (sized(3 << 40), "3.0 TiB"),
        (lasted(59.6), "1 min 0 s"),
        (lasted(3661), "1 h 1 min"),
        (lasted(90_000), "1 d 1 h"),
    ],
)
def test_numbers_read_well(shown: str, text: str) -> None:
    assert shown == text


def test_a_lag_is_said_only_of_a_head_of_now() -> None:
    live = replace(LATER, phase="head", done_blocks=1000)
    assert "head lag 1,801" in progress_line(live, Rates({}, None))
    silent = replace(live, head_age_seconds=63.0, warning="no endpoint has named a head")
    line = progress_line(silent, Rates({}, None))
    assert "head lag unknown, nodes last heard 1 min 3 s ago" in line
    assert "head lag 1,801" not in line
    assert "no endpoint has named a head" in line
    assert progress_fields(silent, Rates({}, None))["head_lag_blocks"] is None
    halted = progress_line(replace(live, phase="halted"), Rates({}, None))
    assert "head lag" not in halted


def test_an_endpoints_head_has_its_age_where_it_is_not_of_now() -> None:
    providers = (
        ProviderProgress("leads", head=2000, head_age_seconds=1.0),
        ProviderProgress("rests", head=1900, head_age_seconds=125.0),
    )
    shown, out = terminal(tty=True)
    shown.out.print(render_progress(replace(LATER, providers=providers), Rates({}, None)))
    assert "1,900 (2 min 5 s ago)" in out.getvalue()
    assert "2,000 (" not in out.getvalue()
