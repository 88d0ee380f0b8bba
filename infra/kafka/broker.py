"""A folder in, a running single-node Kafka broker on loopback out, without Docker.

It is Apache Kafka itself in KRaft mode, a child process of Java. It leaves when the process that
started it is gone.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra import leash
from infra.kafka.clients import client_config, wire_bytes_max
from infra.kafka.jars import broker_jars
from infra.kafka.java import find_java
from infra.ports import HOST, free_port
from infra.settings_cluster import KafkaSettings
from schemas.errors_kafka import BrokerDidNotStart

START_SECONDS_MAX = 300.0
"""A bound for a machine that does much else: a broker whose process ends is not waited for."""
STOP_SECONDS_MAX = 30.0
FORMAT_HEAP = "64m"


@dataclass(frozen=True, slots=True)
class BrokerSize:
    """What the broker may take of the machine."""

    heap: str = "512m"
    """Java's heap."""
    segment_bytes: int = 128 * 1024 * 1024
    """Bytes of a log file, where a topic says nothing else."""


class LocalBroker:
    """A broker whose topics live in one folder; stopped and started again it keeps its address.

    Parameters
    ----------
    folder
        Its topics, properties and log.
    port, controller_port
        On loopback; 0 lets the system choose, once.
    size
        Heap and log files.
    """

    def __init__(
        self,
        folder: Path | str,
        port: int = 0,
        controller_port: int = 0,
        size: BrokerSize = BrokerSize(),
    ) -> None:
        self.folder = Path(folder).absolute()
        self.port, self.controller_port = port, controller_port
        self._size = size
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalBroker:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Its address."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of what holds the broker; None while it is not running."""
        return self._process.pid if self.alive and self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.folder / "broker.log"

    @staticmethod
    def check() -> None:
        """Have what a broker needs, or fetch it.

        Raises
        ------
        JavaMissing, BrokerFilesMissing
        """
        find_java()
        broker_jars()

    def start(self) -> LocalBroker:
        """Start it and wait until it answers.

        Raises
        ------
        JavaMissing, BrokerFilesMissing, BrokerDidNotStart
        """
        java, jars = find_java(), broker_jars()
        (self.folder / "topics").mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        self.controller_port = self.controller_port or free_port()
        properties = self.folder / "server.properties"
        properties.write_text(self._properties())
        if not (self.folder / "topics" / "meta.properties").exists():
            self._format(java, jars, properties)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", leash.__file__),
                    *_java(java, jars, "kafka.Kafka", self._size.heap),
                    str(properties),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it; what it acknowledged is on disk."""
        if self._process is not None and self.alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS_MAX)
        self.kill()

    def kill(self) -> None:
        """Stop it at once, as kill -9 does."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            # The leash kills the broker when this closes, and waits for its end.
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _properties(self) -> str:
        default = wire_bytes_max(KafkaSettings())
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "listeners": (
                f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller_port}"
            ),
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.folder / "topics",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            "message.max.bytes": default,
            "replica.fetch.max.bytes": default,
            "log.segment.bytes": self._size.segment_bytes,
            # After kill -9 the broker waits for its own old session.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 1000,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def _format(self, java: Path, jars: Path, properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [
                *_java(java, jars, "kafka.tools.StorageTool", FORMAT_HEAP),
                # One name in 64 begins with a dash and would be taken for an option.
                *("format", f"--cluster-id={cluster}", "-c", str(properties)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.log.write_text(done.stdout + done.stderr)
            raise self._failed("its storage could not be formatted")

    def _wait_until_up(self) -> None:
        assert self._process is not None
        asking: Any = AdminClient(client_config(KafkaSettings(bootstrap=(self.bootstrap,))))
        until = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < until:
            code = self._process.poll()
            if code is not None:
                raise self._failed(f"it ended with exit code {code}: {self._last_words()}")
            with contextlib.suppress(KafkaException):
                # A broker in its own list takes part; listening alone would say too little.
                if asking.list_topics(timeout=0.5).brokers:
                    return
        raise self._failed(f"no answer at {self.bootstrap}")

    def _last_words(self) -> str:
        text = self.log.read_text(errors="replace").strip()
        return text.splitlines()[-1][:300] if text else "it wrote nothing"

    def _failed(self, detail: str) -> BrokerDidNotStart:
        return BrokerDidNotStart(
            detail=detail, timeout_seconds=START_SECONDS_MAX, log=str(self.log)
        )


def _java(java: Path, jars: Path, main: str, heap: str) -> list[str]:
    # The quick compiler and collector: a broker of one machine lives too briefly to earn back what
    # the thorough ones cost.
    return [
        *(str(java), "-Xms64m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *("-Djava.net.preferIPv4Stack=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
        *("-cp", f"{jars}/*", main),
    ]
