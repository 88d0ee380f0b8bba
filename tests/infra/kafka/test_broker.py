"""The broker for one machine: its files, its Java, its life and its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path

import pytest

from infra.kafka import jars
from infra.kafka.admin import connect, create_topics
from infra.kafka.broker import BrokerSize, LocalBroker
from infra.kafka.jars import COMPLETE, broker_jars
from infra.kafka.java import find_java, java_major
from infra.kafka.producer import EnvelopeProducer
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import BrokerDidNotStart, BrokerFilesMissing, JavaMissing
from schemas.segments import Envelope
from tests.kafka_rig import require_kafka
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require_kafka()
    return tmp_path / "broker"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path; programs are written into it by the test."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return bin_folder


def program(path: Path, script: str) -> Path:
    path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    path.chmod(0o755)
    return path


async def test_a_broker_keeps_address_and_messages_over_stop_and_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of these bytes comes a cluster's name that begins with a dash.
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xfb" * 16))
    broker = LocalBroker(folder, size=BrokerSize(heap="256m"))
    with broker:
        kafka = KafkaSettings(
            bootstrap=(broker.bootstrap,), unreachable_seconds_max=PATIENCE_SECONDS
        )
        create_topics(kafka)
        with EnvelopeProducer(kafka) as producer:
            assert await producer.deliver(Envelope("forks", b"1", b"a")) == (0, 0)
            broker.kill()
            assert not broker.alive
            # Sent while nobody is there: it waits, and arrives once.
            await producer.put(Envelope("forks", b"1", b"b"))
            broker.start()
            assert await producer.deliver(Envelope("forks", b"1", b"c")) == (0, 2)
        broker.stop()
        assert broker.pid is None
        broker.start()
        assert connect(kafka).list_topics(timeout=PATIENCE_SECONDS).topics.keys() >= {
            "headrace.forks"
        }
    assert not broker.alive


def test_a_broker_ends_with_the_process_that_started_it(folder: Path) -> None:
    code = (
        "import sys, time\n"
        "from infra.kafka.broker import LocalBroker, BrokerSize\n"
        f"broker = LocalBroker({str(folder)!r}, size=BrokerSize(heap='256m')).start()\n"
        "print(broker.pid, broker.bootstrap, flush=True)\n"
        "sys.stdin.read()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    assert starter.stdin is not None
    leash = int(starter.stdout.readline().split()[0])
    watched = os.pidfd_open(leash)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    starter.stdin.close()

    # Readable once the process is gone.
    assert select.select([watched], [], [], PATIENCE_SECONDS)[0]
    os.close(watched)
    with LocalBroker(folder, size=BrokerSize(heap="256m")) as next_one:
        assert next_one.alive


def test_a_broker_that_cannot_start_says_where_to_look(folder: Path) -> None:
    broker = LocalBroker(folder, size=BrokerSize(heap="nonsense"))

    with pytest.raises(BrokerDidNotStart) as raised:
        broker.start()

    assert str(folder) in raised.value.fix_text
    assert not broker.alive


def test_java_is_found_by_its_home_then_by_the_path(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = program(programs / "java", """echo 'openjdk version "17.0.2" 2022-01-18' >&2""")
    assert find_java() == java

    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    newer = program(home / "bin" / "java", """echo 'java version "21"' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == newer
    assert java_major(newer) == 21


def test_a_java_too_old_is_refused_with_what_to_do(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs / "java", """echo 'java version "1.8.0_302"' >&2""")

    with pytest.raises(JavaMissing) as raised:
        find_java()
    assert "is Java 8" in raised.value.what_text
    assert "apt install" in raised.value.fix_text

    (programs / "java").unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(JavaMissing, match="no `java` on the path"):
        find_java()


MAVEN = """
    echo run >> "{log}"
    for word in "$@"; do
      case "$word" in -DoutputDirectory=*) out="${{word#*=}}";; esac
    done
    mkdir -p "$out" && touch "$out/kafka_2.13-9.9.9.jar"
"""


def test_files_are_fetched_once_also_by_starters_at_the_same_time(
    programs: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    program(programs / "mvn", MAVEN.format(log=calls))
    cache = tmp_path / "cache"
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(broker_jars(cache, "9.9.9"))) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert found == [cache / "kafka-9.9.9"] * 4
    assert (cache / "kafka-9.9.9" / COMPLETE).exists()
    assert calls.read_text() == "run\n"
    assert sorted(path.name for path in cache.iterdir()) == [".kafka-9.9.9.lock", "kafka-9.9.9"]


def test_a_fetch_that_was_cut_short_is_done_again(programs: Path, tmp_path: Path) -> None:
    program(programs / "mvn", MAVEN.format(log=tmp_path / "calls"))
    (tmp_path / "kafka-9.9.9").mkdir()
    (tmp_path / "kafka-9.9.9" / "half.jar").touch()

    assert not (broker_jars(tmp_path, "9.9.9") / "half.jar").exists()


def test_what_maven_says_is_quoted(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs / "mvn", "echo '[INFO] so far'; echo '[ERROR] no such host'; exit 1")
    with pytest.raises(BrokerFilesMissing, match="no such host") as raised:
        broker_jars(tmp_path, "9.9.9")
    assert str(tmp_path) in raised.value.why_text

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerFilesMissing, match="no `mvn`"):
        broker_jars(tmp_path, "9.9.9")


def test_the_leash_passes_signals_and_exit_codes_on() -> None:
    leash = str(Path(jars.__file__).parent.parent / "leash.py")

    def held(script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", leash, "/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with held("exit 7") as process:
        assert process.wait() == 7
    with held("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait() == 9
    with held("echo up; exec sleep 600") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        process.stdin.close()
        assert process.wait() == 128 + signal.SIGKILL
