"""What every role of a cluster shares: signals, health, metrics, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from infra.exit_codes import ExitCode
from infra.roles.health import Health, serve_health
from infra.roles.role_run import RoleRun, run_role
from infra.roles.topic_reader import ReadStopped
from infra.settings import Settings
from schemas.errors_embedded import PortTaken
from schemas.metrics import METRICS
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys, uvloop
from infra.logs import configure_logs
from infra.roles.role_run import run_role
from infra.settings import Settings

def patient(run):
    print("up", flush=True)
    run.stopping.wait()
    print("drained", flush=True)

def looping(run):
    async def body():
        asked = run.stop_event()
        print("up", flush=True)
        await asked.wait()
        print("drained", flush=True)
    uvloop.run(body())

def locked(run):
    import time
    with run.stopping._cond:
        print("up", flush=True)
        time.sleep(1)
    run.stopping.wait()
    print("drained", flush=True)

def deaf(run):
    import signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    patient(run)

def stuck(run):
    print("up", flush=True)
    import threading
    threading.Event().wait()

configure_logs()
settings = Settings(roles={"drain_seconds_max": float(sys.argv[2])})
sys.exit(run_role("sink", settings, globals()[sys.argv[1]]))
"""


def started(kind: str, drain_seconds: float = 30) -> subprocess.Popen[str]:
    """A role in a process of its own, at work."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, str(drain_seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def exit_code_after(
    child: subprocess.Popen[str], first: signal.Signals, shows: str, then: signal.Signals
) -> int:
    """The exit code after a signal, what it makes the role show, and one more signal."""
    child.send_signal(first)
    assert child.stderr is not None
    assert any(shows in line for line in iter(child.stderr.readline, ""))
    child.send_signal(then)
    child.communicate(timeout=PATIENCE_SECONDS)
    return child.returncode


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("kind", ["patient", "looping", "locked", "deaf"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.ok), (signal.SIGINT, ExitCode.interrupted)]
)
def test_a_signal_drains(kind: str, number: signal.Signals, code: ExitCode) -> None:
    child = started(kind)
    child.send_signal(number)

    out, err = child.communicate(timeout=PATIENCE_SECONDS)

    assert (child.returncode, out) == (code, "drained\n")
    assert "role_drains" in err
    assert "role_ended" in err


def test_a_signal_shows_where_every_thread_is() -> None:
    code = exit_code_after(started("patient"), signal.SIGUSR1, "in patient", signal.SIGTERM)
    assert code == ExitCode.ok


def test_a_second_signal_ends_at_once() -> None:
    code = exit_code_after(started("stuck"), signal.SIGTERM, "role_drains", signal.SIGTERM)
    assert code == ExitCode.interrupted


def test_a_drain_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    over = threading.Event()

    def leave(code: int) -> None:
        ended.append(code)
        over.set()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("infra.roles.role_run.DRAIN_GRACE_SECONDS", 0.0)
    run = RoleRun("sink", Settings(roles={"drain_seconds_max": 0.01}))

    run.stop()

    assert over.wait(PATIENCE_SECONDS)
    assert ended == [ExitCode.failed]


def test_health_names_what_stands_still_and_what_is_not_ready() -> None:
    now = 100.0
    health = Health(lambda: now)
    health.expect("kafka", "clickhouse")
    health.beat("history", 10)
    run = RoleRun("sink", Settings())
    run.counter("headrace_loads_total", "chain").labels("local").inc(3)

    with serve_health("127.0.0.1", 0, health, run.registry) as port:
        assert fetch(port, "/healthz")[0] == 200
        code, text = fetch(port, "/readyz")
        assert code == 503
        assert json.loads(text)["wrong"] == {"kafka": "not yet", "clickhouse": "not yet"}
        health.ready("kafka")
        health.ready("clickhouse")
        assert fetch(port, "/readyz") == (200, '{"ok": true, "wrong": {}}\n')
        now = 120.0
        code, text = fetch(port, "/healthz")
        assert (code, json.loads(text)["wrong"]) == (503, {"history": 20.0})
        health.end_beat("history")
        assert fetch(port, "/healthz?verbose")[0] == 200
        code, text = fetch(port, "/metrics")
        assert code == 200
        assert 'headrace_loads_total{chain="local"} 3.0' in text
        assert "process_cpu_seconds_total" in text
        assert fetch(port, "/")[0] == 404
        with pytest.raises(PortTaken):
            run_role("sink", Settings(roles={"health_port": port}), lambda _run: None)


def test_a_role_that_drains_is_not_ready() -> None:
    run = RoleRun("sink", Settings())
    told = threading.Event()
    run.on_stop(told.set)

    run.stop()
    run.stop()

    assert told.wait(PATIENCE_SECONDS)
    assert "draining" in run.health.unmet()
    assert run.health.stuck() == {}
    run.ended()


def test_every_kind_of_declared_metric_can_be_counted() -> None:
    run = RoleRun("sink", Settings())
    make = {"counter": run.counter, "gauge": run.gauge, "histogram": run.histogram}

    for metric in METRICS:
        make[metric.kind](metric.name)

    assert {metric.name for metric in METRICS} <= set(run.registry._names_to_collectors)


def test_work_that_nobody_waits_for_any_longer_has_drained() -> None:
    def stopped(run: RoleRun) -> None:
        run.stop()
        raise ReadStopped

    def closed(_run: RoleRun) -> None:
        raise ReadStopped

    assert run_role("publish", Settings(), stopped, signals=False) == ExitCode.ok
    with pytest.raises(ReadStopped):
        run_role("publish", Settings(), closed, signals=False)


def test_work_that_ends_by_itself_is_done() -> None:
    def work(run: RoleRun) -> None:
        assert not run.stopping.is_set()

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert run_role("sink", Settings(), work, signals=False) == 0
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert before == after
