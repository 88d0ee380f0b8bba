"""A cluster with stand-ins for its roles: started, disturbed, ended."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.kafka.admin import check_topics, connect
from infra.kafka.broker import BrokerSize
from infra.local.child import RoleCommand, answer_of
from infra.local.cluster import LocalCluster
from infra.local.directory import LocalDirectory, ProcessState
from infra.local.plan import LocalPlan, cluster_roles
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings, RolesSettings
from infra.settings_sources import load_settings
from schemas.errors import HeadraceError
from schemas.errors_local import LocalInUse, LocalNotReady, LocalStepFailed, NotALocalDirectory
from sinks.connection import Connection
from tests.e2e.running import until
from tests.infra.local import fake_role
from tests.kafka_rig import require_kafka
from tests.patience import PATIENCE_SECONDS

HEAP = BrokerSize(heap="256m")
FAKE = (sys.executable, "-P", fake_role.__file__)


def plan(behaviours: Path, *names: str, steps: tuple[str, ...] = ()) -> LocalPlan:
    behaviours.mkdir(exist_ok=True)

    def roles(_workers: int) -> list[RoleCommand]:
        return [
            RoleCommand(name, (str(behaviours / name),), ends=name == "ingest", program=FAKE)
            for name in names
        ]

    return LocalPlan(broker=HEAP, steps=steps, roles=roles)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A running cluster whose servers a test may disturb, and must leave running."""
    require_kafka()
    folder = tmp_path_factory.mktemp("local")
    directory = LocalDirectory(folder / "cluster")
    settings = Settings(
        chain="local",
        rpc="http://127.0.0.1:1/secret-key",  # type: ignore[arg-type]
        kafka=KafkaSettings(unreachable_seconds_max=PATIENCE_SECONDS),
    )
    with LocalCluster(directory, settings, plan(folder / "b", "sink-0", "publish")) as cluster:
        yield cluster


def states(cluster: LocalCluster) -> set[str]:
    """What the state file says of the processes."""
    state = cluster.directory.read_state()
    assert state is not None
    return {one.state for one in state.processes}


def starts(cluster: LocalCluster, name: str) -> int:
    return cluster.roles[name].starts


def await_start(cluster: LocalCluster, name: str, count: int) -> None:
    """Wait until a role was started `count` times and is ready."""
    role = cluster.roles[name]
    until(lambda: role.starts >= count and role.ready()[0], f"{name} is not started again")


def test_all_of_it_is_there(shared: LocalCluster) -> None:
    shared.await_ready(PATIENCE_SECONDS)

    check_topics(shared.kafka)
    with Connection(shared.endpoint()) as connection:
        assert connection.execute("SELECT 1") == [(1,)]
    state = shared.directory.read_state()
    assert state is not None
    assert state.ready
    assert state.pid == os.getpid()
    assert [one.name for one in state.processes] == ["kafka", "clickhouse", "sink-0", "publish"]
    # The file is written a moment after a role was started, perhaps by the test before.
    until(lambda: states(shared) == {"running"}, "the file does not say that all of it runs")


def test_roles_are_told_where_all_is_in_a_file_of_ours_alone(shared: LocalCluster) -> None:
    file = shared.directory.settings

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = load_settings(file, {}, {})
    assert settings == shared.settings
    assert settings.kafka.bootstrap == (shared.broker.bootstrap,)
    assert settings.clickhouse.url is not None
    endpoint = shared.endpoint()
    assert endpoint.password in settings.clickhouse.url.get_secret_value()
    assert "secret-key" not in (shared.directory.path / "local.json").read_text()
    assert endpoint.password not in (shared.directory.path / "local.json").read_text()


def test_a_killed_role_is_started_again(shared: LocalCluster) -> None:
    shared.await_ready(PATIENCE_SECONDS)
    before, pid = starts(shared, "sink-0"), shared.roles["sink-0"].pid

    shared.kill("sink-0")
    await_start(shared, "sink-0", before + 1)

    assert shared.roles["sink-0"].pid != pid
    assert shared.roles["sink-0"].exit_code == 128 + signal.SIGKILL


def test_a_role_drains_and_stays_away_until_it_is_started(shared: LocalCluster) -> None:
    shared.await_ready(PATIENCE_SECONDS)
    role = shared.roles["publish"]

    shared.stop_role("publish")
    assert not role.alive
    assert role.log.read_text().endswith("drained\n")
    wanted = {"publish": "stopped, exit code 0"}
    until(lambda: dict(shared.unready()) == wanted, "the others do not answer")

    shared.start_role("publish")
    shared.await_ready(PATIENCE_SECONDS)


def test_the_broker_goes_and_comes_back_at_its_address(shared: LocalCluster) -> None:
    address = shared.broker.bootstrap
    shared.stop_broker()
    assert not shared.broker.alive
    shared.start_broker()
    assert shared.broker.bootstrap == address

    shared.broker.kill()
    # Asking waits until the supervisor has started it again.
    assert connect(shared.kafka).list_topics(timeout=PATIENCE_SECONDS).topics


def test_clickhouse_goes_and_comes_back_at_its_address(shared: LocalCluster) -> None:
    endpoint = shared.endpoint()
    shared.stop_clickhouse(kill=True)
    with Connection(endpoint) as connection, pytest.raises(HeadraceError):
        connection.execute("SELECT 1")
    shared.start_clickhouse()

    assert shared.endpoint() == endpoint
    with Connection(endpoint) as connection:
        assert connection.execute("SELECT 1") == [(1,)]


def test_a_second_cluster_in_the_directory_is_refused(shared: LocalCluster) -> None:
    with pytest.raises(LocalInUse, match=str(os.getpid())):
        LocalCluster(LocalDirectory(shared.directory.path), Settings()).start()
    with pytest.raises(LocalInUse):
        shared.directory.wipe()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    for call in (LocalDirectory(tmp_path).own, LocalDirectory(tmp_path).wipe):
        with pytest.raises(NotALocalDirectory):
            call()
    assert (tmp_path / "thesis.tex").exists()


def test_a_mounted_disk_with_its_lost_and_found_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    directory = LocalDirectory(tmp_path)

    directory.own()
    directory.release()
    directory.own()
    directory.release()
    directory.wipe()

    assert [entry.name for entry in tmp_path.iterdir()] == ["lost+found"]


def test_logs_and_topics_are_for_the_owner_alone(tmp_path: Path) -> None:
    for name in ("logs", "kafka"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "local.lock").touch()

    directory = LocalDirectory(tmp_path)
    directory.own()
    directory.release()

    for name in ("logs", "kafka"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


def test_the_plan_is_every_role_there_is() -> None:
    lines = {role.name: role.arguments for role in cluster_roles(2)}

    assert lines == {
        "ingest": ("ingest",),
        "process-history-0": ("process", "--lanes", "history"),
        "process-history-1": ("process", "--lanes", "history"),
        "process-head-0": ("process", "--lanes", "head"),
        "process-head-1": ("process", "--lanes", "head"),
        "sink-0": ("sink",),
        "sink-1": ("sink",),
        "publish": ("publish",),
    }


def test_roles_that_end_fail_or_stand_still_are_told_apart(tmp_path: Path) -> None:
    require_kafka()
    behaviours = tmp_path / "b"
    chosen = plan(behaviours, "ingest", "sink-0", "publish", "process-head-0")
    for name, what in (
        ("ingest", "end"),
        ("sink-0", "fail"),
        ("publish", "usage"),
        ("process-head-0", "unready"),
    ):
        (behaviours / name).write_text(what)
    directory = LocalDirectory(tmp_path / "cluster")
    with LocalCluster(directory, Settings(chain="local"), chosen) as cluster:

        def told_apart() -> bool:
            found = {one.name: (one.state, one.exit_code) for one in cluster.state().processes[2:]}
            return (
                found["ingest"] == ("done", 0)
                and found["publish"] == ("failed", 2)
                and found["sink-0"][1] == 5
                and cluster.roles["sink-0"].starts > 1
                and "kafka" in dict(cluster.unready()).get("process-head-0", "")
            )

        told: list[LocalNotReady] = []

        def answered() -> bool:
            with pytest.raises(LocalNotReady) as raised:
                cluster.await_ready(0.0)
            told.append(raised.value)
            # A role that is slow to answer is told by that, and not by what it lacks.
            return "kafka: not yet" in raised.value.what_text

        until(told_apart, "the roles are not told apart")
        until(answered, "the role does not say what it lacks")
    assert "out of luck" in told[-1].why_text
    assert "ingest" not in told[-1].what_text
    assert not directory.held()
    directory.wipe()
    assert not directory.path.exists()


def test_a_role_whose_health_check_fails_is_restarted(tmp_path: Path) -> None:
    require_kafka()
    behaviours = tmp_path / "b"
    chosen = plan(behaviours, "sink-0", "publish")
    (behaviours / "sink-0").write_text("stuck")
    settings = Settings(chain="local", roles=RolesSettings(unhealthy_seconds_max=8.0))
    with LocalCluster(LocalDirectory(tmp_path / "cluster"), settings, chosen) as cluster:
        role = cluster.roles["sink-0"]
        until(lambda: "loop" in answer_of(role.health_url, "/healthz")[1], "it is not stuck")
        (behaviours / "sink-0").write_text("stay")
        await_start(cluster, "sink-0", 2)

        assert cluster.roles["sink-0"].exit_code == 128 + signal.SIGKILL
        assert starts(cluster, "publish") == 1


def test_the_state_file_counts_the_starts_of_clickhouse(shared: LocalCluster) -> None:
    shared.await_ready(PATIENCE_SECONDS)

    def clickhouse() -> ProcessState:
        state = shared.directory.read_state()
        assert state is not None
        (one,) = [one for one in state.processes if one.name == "clickhouse"]
        return one

    before = clickhouse()
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    until(lambda: clickhouse().starts > before.starts, "the restart is not counted")
    until(lambda: clickhouse().state == "running", "it does not run")
    assert clickhouse().pid != before.pid


def test_a_step_that_fails_ends_the_start(tmp_path: Path) -> None:
    require_kafka()
    directory = LocalDirectory(tmp_path / "cluster")
    cluster = LocalCluster(
        directory, Settings(chain="local"), plan(tmp_path / "b", steps=("nonsense",))
    )

    with pytest.raises(LocalStepFailed) as raised:
        cluster.start()

    assert "headrace nonsense" in raised.value.what_text
    assert not directory.held()
    assert not cluster.broker.alive


HOLD = """
import sys
from pathlib import Path
from infra.local.cluster import LocalCluster
from infra.local.directory import LocalDirectory
from infra.settings import Settings
from tests.infra.local.test_cluster import plan
from tests.patience import PATIENCE_SECONDS

folder = Path(sys.argv[1])
cluster = LocalCluster(
    LocalDirectory(folder / "cluster"), Settings(chain="local"), plan(folder / "b", "sink-0")
).start()
cluster.await_ready(PATIENCE_SECONDS)
print("up", flush=True)
sys.stdin.read()
"""


def test_everything_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    require_kafka()
    supervisor = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent.parent,
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "up\n"
    directory = LocalDirectory(tmp_path / "cluster")
    state = directory.read_state()
    assert state is not None
    watched = [os.pidfd_open(one.pid) for one in state.processes if one.pid is not None]
    assert len(watched) == 3
    supervisor.kill()
    supervisor.wait()
    supervisor.stdin.close()
    supervisor.stdout.close()

    for one in watched:
        assert select.select([one], [], [], PATIENCE_SECONDS)[0]
        os.close(one)
    assert not directory.held()
