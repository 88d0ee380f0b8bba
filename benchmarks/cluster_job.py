"""What the cluster does on one machine: logs a second through Kafka and Faust, CPU of each role.

The claim: a node, Kafka, ClickHouse and every role together on two cores bring at least 45,000
logs a second from the node to the views, 30 transactions and 100 logs a block, verified to
`receipts`. Time runs from the start of the ingester's process until the last block is visible;
every other role is up before. The result is compared with the chain's truth.

With ``--workers 2`` there are two workers of `process` and two of `sink`: how evenly they share the
partitions is in the figures, as the lag of each partition while the job was half done.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks.measure import record, tree_cpu_seconds
from benchmarks.served import LOGS, TRANSACTIONS, archive_folder, read_truth, serve_archive
from benchmarks.stored import compare, every_table
from infra.kafka.clients import consumer_config
from infra.local.cluster import LocalCluster
from infra.local.directory import CLICKHOUSE, LocalDirectory
from infra.local.plan import LocalPlan, cluster_roles
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from infra.settings_sources import load_settings
from schemas.topics import topic_name
from sinks.connection import Connection

LOGS_PER_SECOND_MIN = 45_000
"""Claimed."""
CHAIN = "local"
READY_SECONDS_MAX, JOB_SECONDS_MAX = 60.0, 900.0
POLL_SECONDS = 0.1


def visible_head(connection: Connection) -> int:
    """The highest visible block; -1 where there is none."""
    rows = connection.execute("SELECT head FROM canon ORDER BY generation DESC, seq DESC LIMIT 1")
    return int(rows[0][0]) if rows else -1


def lag_by_partition(kafka: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """Messages of each partition of a topic that a group has not committed yet."""
    name = topic_name(kafka.topic_prefix, topic)
    consumer = Consumer(consumer_config(kafka, topic_name(kafka.topic_prefix, group)))
    try:
        numbers = consumer.list_topics(name, 10).topics[name].partitions
        committed = consumer.committed([TopicPartition(name, number) for number in numbers], 10)
        lags = {}
        for place in committed:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, place.partition), 10)
            lags[place.partition] = high - max(low, place.offset)
        return lags
    finally:
        consumer.close()


def settings_for(folder: Path, url: str, partitions: int) -> Settings:
    """What the roles are told; no last block, so that the ingester lives until it is measured."""
    config = folder / "headrace.toml"
    config.write_text(
        f"chain = '{CHAIN}'\nrpc = ['{url}']\nfrom = 0\nverify = 'receipts'\n"
        f"[kafka]\npartitions = {partitions}\n"
    )
    return load_settings(config, {}, {})


def run_job(
    cluster: LocalCluster, blocks: int, half_way: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Start the ingester of a ready cluster and wait for the last block."""
    cluster.await_ready(READY_SECONDS_MAX)
    before = cpu_by_role(cluster)
    started = time.perf_counter()
    cluster.add_worker("ingest")
    first: float | None = None
    asked: dict[str, Any] | None = None
    with Connection(cluster.endpoint(database=CHAIN)) as connection:
        while (head := visible_head(connection)) < blocks:
            seconds = time.perf_counter() - started
            if seconds > JOB_SECONDS_MAX:
                raise SystemExit(f"only {head} of {blocks} blocks are visible")
            if head >= 0 and first is None:
                first = seconds
            if asked is None and head > blocks // 2:
                asked = half_way()
            time.sleep(POLL_SECONDS)
    wall = time.perf_counter() - started
    after = cpu_by_role(cluster)
    used = {name: round(after[name] - before.get(name, 0.0), 2) for name in after}
    logs = blocks * LOGS
    return {
        "wall_seconds": round(wall, 2),
        "first_visible_seconds": round(first or wall, 2),
        "logs_per_second": round(logs / wall),
        "cpu_seconds_per_million_logs": round(1e6 * sum(used.values()) / logs, 1),
        "cpu_seconds_by_role": used,
        **(asked or {}),
    }


def cpu_by_role(cluster: LocalCluster) -> dict[str, float]:
    """CPU seconds that each process of the cluster has used."""
    return {
        one.name: tree_cpu_seconds(one.pid)
        for one in cluster.state().processes
        if one.pid is not None
    }


def run(blocks: int, folder: Path, workers: int, partitions: int) -> dict[str, Any]:
    """One job on a fresh cluster; raises if the result is not the truth."""
    with tempfile.TemporaryDirectory(prefix="headrace-cluster-job-") as scratch:
        place = Path(scratch)
        with serve_archive(folder, blocks) as served:
            settings = settings_for(place, served.url, partitions)
            directory = LocalDirectory(place / "cluster")
            # The job begins with the start of the ingester: all others are up before.
            others = [role for role in cluster_roles(workers) if role.name != "ingest"]
            plan = LocalPlan(workers=workers, roles=lambda _: others)
            with LocalCluster(directory, settings, plan) as cluster:
                kafka = cluster.settings.kafka

                def half_way() -> dict[str, Any]:
                    lags = {
                        f"{group} {topic}": lag_by_partition(kafka, group, topic)
                        for group, topic in (
                            ("process.history", "raw.logs.history"),
                            ("sink.history", "raw.logs.history"),
                        )
                    }
                    return {"lag_messages_half_way": lags}

                figures = run_job(cluster, blocks, half_way)
            figures["server_of_the_chain_cpu_seconds"] = served.cpu_seconds()
        compared = compare(directory.path / CLICKHOUSE, read_truth(folder), every_table())
    if compared.differences:
        raise SystemExit("the result is not the truth:\n" + "\n".join(compared.differences))
    return {
        "blocks": blocks,
        "transactions_per_block": TRANSACTIONS,
        "logs_per_block": LOGS,
        "partitions": partitions,
        "workers": workers,
        **figures,
        "claim_held": figures["logs_per_second"] >= LOGS_PER_SECOND_MIN,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--archive", type=Path, help="folder of the chain, made where missing")
    given = parser.parse_args(words)
    folder = archive_folder(given.archive, given.blocks)
    record("cluster_job", run(given.blocks, folder, given.workers, given.partitions))


if __name__ == "__main__":
    main()
