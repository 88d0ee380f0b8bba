"""`headrace ingest` as a process on a real broker: killed, restarted elsewhere, asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.devchain.chain import Chain
from infra.devchain.server import serve_in_thread
from infra.kafka.producer import EnvelopeProducer
from infra.settings_cluster import KafkaSettings
from ingest.requests import request_envelope
from schemas.codec import decode_ingest_checkpoint
from schemas.segments import AGAIN, Envelope, SegmentWanted
from tests.infra.roles.acknowledging import Followers
from tests.infra.roles.kafka_reader import read_topic
from tests.infra.roles.test_ingest_jobs import assert_shows
from tests.ingest.devchain_node import CHAIN_ID, LOCAL, small_chain
from tests.patience import PATIENCE_SECONDS

RAW = ("raw.blocks.history", "raw.logs.history", "raw.blocks.head", "raw.logs.head")


SLOWLY = {"roles__history_blocks_per_second_max": "1"}
"""Settings of an ingester that is met in the midst of its history, however late one comes."""


@contextmanager
def served(blocks: int) -> Iterator[tuple[Chain, str]]:
    """A chain of so many blocks, and where its node is."""
    chain = small_chain(blocks)
    with serve_in_thread(chain) as server:
        yield chain, server.http_urls[0]


@contextmanager
def ingester(
    kafka: KafkaSettings, folder: Path, url: str, *flags: str, **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """The command as a process; killed at the end if it still runs."""
    variables = {
        "HEADRACE_KAFKA__BOOTSTRAP": ",".join(kafka.bootstrap),
        "HEADRACE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "HEADRACE_SEGMENT_BLOCKS": str(LOCAL.segment_blocks),
        "HEADRACE_PARTITION_BLOCKS": str(LOCAL.partition_blocks),
        **{f"HEADRACE_{name.upper()}": value for name, value in settings.items()},
    }
    words = ["ingest", "--chain", "local", "--rpc", url, "--from", "0", *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", *words],
        env={**os.environ, **variables},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What a process that ends with exit code 0 has written."""
    written, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, written
    return written


def covered_to(kafka: KafkaSettings) -> int:
    """The last block of the first span of the newest checkpoint; -1 without one."""
    written = [decode_ingest_checkpoint(one.value) for one in read_topic(kafka, "checkpoints")]
    spans = written[-1].covered if written else ()
    return spans[0].to_block if spans and spans[0].from_block == 0 else -1


def until(condition: Callable[[], object], what: str) -> None:
    """Ask a server again and again until it says so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def everything(kafka: KafkaSettings) -> list[Envelope]:
    """Heads first, then the segments: another order than they came in, and as good."""
    return [one for topic in ("raw.heads", *RAW) for one in read_topic(kafka, topic)]


def assert_all_there(kafka: KafkaSettings, chain: Chain) -> None:
    followers = Followers(LOCAL)
    followers.follow(everything(kafka))
    assert_shows(followers, chain)


def test_a_killed_ingester_goes_on_elsewhere_and_skips_nothing(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with served(400) as (chain, url):
        with ingester(kafka, tmp_path, url, **SLOWLY) as process:
            until(lambda: covered_to(kafka) >= 0, "the first checkpoint")
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed_at = covered_to(kafka)
        assert 0 <= killed_at < 380
        sent = len(read_topic(kafka, "raw.logs.history"))
        with ingester(kafka, tmp_path, url, "--to", "399") as process:
            written = ended(process)
    assert "acknowledged" in written
    names = [one.headers["from"] for one in read_topic(kafka, "raw.logs.history")]
    assert set(names) == {str(at) for at in range(0, 390, 5)}
    # Sent twice is at most what was not in the checkpoint yet.
    assert len(names) - len(set(names)) <= sent - killed_at // 5
    assert_all_there(kafka, chain)


def test_sigterm_drains_and_leaves_a_checkpoint(kafka: KafkaSettings, tmp_path: Path) -> None:
    with served(200) as (_chain, url), ingester(kafka, tmp_path, url, **SLOWLY) as process:
        until(lambda: read_topic(kafka, "raw.logs.history"), "the first segment")
        process.send_signal(signal.SIGTERM)
        ended(process)
    names = {int(one.headers["to"]) for one in read_topic(kafka, "raw.logs.history")}
    blocks = {int(one.headers["to"]) for one in read_topic(kafka, "raw.blocks.history")}
    assert covered_to(kafka) == max(names & blocks)


def test_two_ingesters_and_a_reorg_while_none_runs(kafka: KafkaSettings, tmp_path: Path) -> None:
    with served(120) as (chain, url):
        for depth in (4, 0):
            target = str(chain.head.header.number)
            with (
                ingester(kafka, tmp_path, url, "--to", target) as one,
                ingester(kafka, tmp_path, url, "--to", target) as two,
            ):
                ended(one)
                ended(two)
            assert_all_there(kafka, chain)
            if depth:
                chain.reorg(depth)
                chain.mine(60)


def test_a_request_is_answered_while_the_head_is_followed(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    chain = small_chain(60)
    wanted = SegmentWanted(
        CHAIN_ID, 7, 7, None, ("logs",), "mine", "a test", int(time.time() * 1000)
    )
    with serve_in_thread(chain) as server, ingester(kafka, tmp_path, server.http_urls[0]):
        until(lambda: covered_to(kafka) >= 49, "the history")
        with EnvelopeProducer(kafka) as producer:
            producer.deliver_blocking(request_envelope(wanted))

        def answered() -> bool:
            sent = read_topic(kafka, "raw.logs.history")
            return any(one.headers.get(AGAIN) == "mine" for one in sent)

        until(answered, "the segment that was asked for")


def test_an_ingester_with_nothing_else_to_do_serves_what_was_asked_for_before(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with served(60) as (_chain, url):
        with ingester(kafka, tmp_path, url, "--to", "39") as process:
            ended(process)
        with EnvelopeProducer(kafka) as producer:
            for at in (7, 12):
                now_ms = int(time.time() * 1000)
                wanted = SegmentWanted(CHAIN_ID, at, at, None, ("logs",), f"{at}", "", now_ms)
                producer.deliver_blocking(request_envelope(wanted))
        for _ in range(2):
            with ingester(kafka, tmp_path, url, "--to", "39") as process:
                ended(process)
    again = [one.headers.get(AGAIN) for one in read_topic(kafka, "raw.logs.history")]
    assert sorted(one for one in again if one) == ["12", "7"], "served, and once"


def test_topics_that_are_missing_are_named(kafka_settings: KafkaSettings, tmp_path: Path) -> None:
    with (
        serve_in_thread(small_chain(20)) as server,
        ingester(kafka_settings, tmp_path, server.http_urls[0]) as process,
    ):
        written, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 4
    assert "HR-6003" in written
    assert "headrace topics create" in written


@pytest.mark.parametrize("lanes", ["heed", ""])
def test_lanes_that_are_none_are_refused(lanes: str, tmp_path: Path) -> None:
    kafka = KafkaSettings()
    with ingester(kafka, tmp_path, "http://127.0.0.1:1", "--lanes", lanes) as process:
        written, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2, written
    assert "--lanes" in written
