"""What Kafka and Faust cost beside decoding: one worker of `headrace process`, and its function.

The claim: a worker decodes at least 120 thousand logs a CPU second, in segments of 10 blocks of
100 logs of a mainnet-like mix. The broker is a local one of the same machine; what it costs is not
counted. CPU seconds are the worker's own, from its first message out to its last, its librdkafka
and aiokafka threads included.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.decoder import BLOCKS, MIX, segment
from benchmarks.measure import record
from infra.kafka.admin import create_topics
from infra.kafka.broker import LocalBroker
from infra.kafka.clients import consumer_config
from infra.kafka.producer import EnvelopeProducer
from infra.settings_cluster import KafkaSettings
from processors.abi import build_layouts
from processors.steps import build_steps
from schemas.codec import encode_log_segment
from schemas.events import builtin_events
from schemas.segments import Envelope, LogSegment, segment_envelope
from schemas.topics import topic_name

LOGS = 1000
VARIANTS = 8
TICKS = os.sysconf("SC_CLK_TCK")


def variants() -> list[LogSegment]:
    """Segments of random logs of the mix."""
    layouts = {one.table.name: one.layouts[0] for one in builtin_events()}
    shares = np.array(list(MIX.values()), float) / sum(MIX.values())
    made = []
    for seed in range(VARIANTS):
        names = np.random.default_rng(seed).choice(list(MIX), LOGS, p=shares)
        made.append(segment([layouts[name] for name in names], seed))
    return made


def envelope(one: LogSegment, number: int) -> Envelope:
    """A segment at its place in the chain."""
    first = number * BLOCKS
    name = replace(
        one.name, from_block=first, to_block=first + BLOCKS - 1, last_hash=number.to_bytes(32)
    )
    return segment_envelope(name, BLOCKS, encode_log_segment(replace(one, name=name)))


def pure(values: list[bytes]) -> float:
    """CPU seconds of the function alone for a million logs."""
    (decode,) = (step for step in build_steps(build_layouts()) if step.agent == "decode")
    before = time.process_time()
    for _ in range(20):
        for value in values:
            decode.derive(value)
    return (time.process_time() - before) / (20 * len(values) * LOGS) * 1e6


def cpu_seconds(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> int:
    """The most memory that a process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def worked(kafka: KafkaSettings, segments: int) -> dict[str, Any]:
    """A worker from its start until it has decoded so many segments."""
    asker: Any = Consumer(consumer_config(kafka, "asker"))
    name = topic_name(kafka.topic_prefix, "events.history")

    def done() -> int:
        places = [TopicPartition(name, one) for one in range(kafka.partitions)]
        return sum(asker.get_watermark_offsets(one, 10)[1] for one in places)

    words = [*("-m", "infra.cli", "process", "--lanes", "history", "--agents", "decode")]
    variables = {
        "HEADRACE_KAFKA__BOOTSTRAP": ",".join(kafka.bootstrap),
        "HEADRACE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
    }
    started = time.monotonic()
    worker = subprocess.Popen([sys.executable, *words], env={**os.environ, **variables})
    try:
        while not (begun := done()):
            time.sleep(0.02)
        first_at, cpu = time.monotonic(), cpu_seconds(worker.pid)
        while done() < segments:
            time.sleep(0.05)
        spent, wall = cpu_seconds(worker.pid) - cpu, time.monotonic() - first_at
        peak = peak_mib(worker.pid)
        worker.send_signal(signal.SIGTERM)
        stopping = time.monotonic()
        code = worker.wait(60)
    finally:
        worker.kill()
    logs = (segments - begun) * LOGS
    return {
        "seconds_to_first_message": round(first_at - started, 2),
        "cpu_seconds_to_first_message": round(cpu, 2),
        "logs_per_second": round(logs / wall),
        "logs_per_cpu_second": round(logs / spent),
        "cpu_seconds_per_million_logs": round(spent / logs * 1e6, 2),
        "peak_mib": peak,
        "seconds_to_drain": round(time.monotonic() - stopping, 2),
        "exit_code": code,
    }


def main() -> int:
    """Feed a broker, run a worker, record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.process_role", description=__doc__)
    parser.add_argument("--segments", type=int, default=4000)
    given = parser.parse_args()
    made = variants()
    with tempfile.TemporaryDirectory() as folder, LocalBroker(folder) as broker:
        kafka = KafkaSettings(bootstrap=(broker.bootstrap,), topic_prefix="bench.")
        create_topics(kafka)
        with EnvelopeProducer(kafka) as producer:
            for number in range(given.segments):
                producer.put_blocking(envelope(made[number % VARIANTS], number))
            producer.flush(60)
        figures = {
            "segments": given.segments,
            "logs_per_segment": LOGS,
            "bytes_per_segment": len(envelope(made[0], 0).value),
            "pure_cpu_seconds_per_million_logs": round(
                pure([envelope(one, 0).value for one in made]), 2
            ),
            "worker": worked(kafka, given.segments),
        }
    record("process_role", figures)
    return 0 if figures["worker"]["logs_per_cpu_second"] >= 120_000 else 1


if __name__ == "__main__":
    sys.exit(main())
