"""The sink against a real broker and a real ClickHouse: nothing lost, nothing twice, ever."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from infra import cli
from infra.clickhouse.server import EmbeddedServer
from infra.devchain.chain import Chain
from infra.exit_codes import ExitCode, exit_code_of
from infra.roles.dead_letters import read_letters
from infra.settings_cluster import KafkaSettings
from schemas.errors_roles import ForeignMessage, InstanceTaken, OffsetsLost
from schemas.segments import Envelope, Stream, data_topic
from schemas.topics import topic_name
from sinks import writer
from sinks.canon_row import Missing
from sinks.consumer import LaneConsumer
from sinks.dead_letters import Letters, dead_letter
from sinks.segment_loader import SegmentLoader
from tests.e2e.running import CHAIN
from tests.infra.roles.sink_rig import (
    Stored,
    config_file,
    made_chain,
    messages_of,
    prepared,
    send,
    settings_of,
    start_sink,
    until,
)

CHAIN_OF_TEST = made_chain()
MESSAGES: list[Envelope] = []
"""Of the chain, made by the first test that needs them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("sink") / "data", chain=CHAIN) as server:
        yield server


@pytest.fixture
def chain() -> Chain:
    return CHAIN_OF_TEST


@pytest.fixture
async def messages(kafka: KafkaSettings, server: EmbeddedServer, chain: Chain) -> list[Envelope]:
    if not MESSAGES:
        MESSAGES.extend(await messages_of(chain, settings_of(kafka, server)))
    return MESSAGES


@pytest.fixture
def stored(kafka: KafkaSettings, server: EmbeddedServer) -> Iterator[Stored]:
    with prepared(kafka, server) as stored:
        yield stored


def load(stored: Stored, **given: Any) -> None:
    """Run a sink until everything is committed."""
    sink = start_sink(stored.settings, **given)
    until(lambda: stored.all_committed() or not sink.thread.is_alive())
    sink.end()


def test_what_kafka_holds_is_loaded_once_and_committed_after_the_ledger(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    send(stored.kafka, messages)

    load(stored)

    assert len(stored.ledger()) == stored.segments() == len(messages)
    stored.check_truth(chain)


def test_a_full_replay_changes_nothing(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    send(stored.kafka, messages)
    load(stored)
    before = stored.ledger()
    stored.commit(0)

    load(stored)

    assert stored.ledger() == before
    stored.check_truth(chain)


class Crashed(BaseException):
    """Stands for kill -9: nothing after it is done."""


@pytest.mark.parametrize("at", ["before the ledger", "after the ledger", "before the commit"])
def test_a_crash_anywhere_loses_and_doubles_nothing(
    stored: Stored,
    messages: list[Envelope],
    chain: Chain,
    at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(stored.kafka, messages)
    real = writer.append_ledger
    calls = 0

    def append(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if at == "before the ledger" and calls == 3:
            raise Crashed
        real(*given)
        if at == "after the ledger" and calls == 3:
            raise Crashed

    with monkeypatch.context() as patch:
        patch.setattr(writer, "append_ledger", append)
        # A dead process commits nothing more.
        patch.setattr(LaneConsumer, "_on_revoke", lambda _self, consumer, parts: None)
        if at == "before the commit":
            tell = SegmentLoader._tell

            def told(self: SegmentLoader, *given: Any) -> None:
                tell(self, *given)
                if self.counts.loads >= 3:
                    raise Crashed

            patch.setattr(SegmentLoader, "_tell", told)
        with pytest.raises(Crashed):
            start_sink(stored.settings).join()
    assert not stored.all_committed()

    load(stored)

    assert stored.segments() == len(messages)
    stored.check_truth(chain)


def test_messages_twice_and_out_of_order_count_once(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    send(stored.kafka, [*reversed(messages), *messages[::3], *messages])

    load(stored)

    assert len(stored.ledger()) == len(messages)
    stored.check_truth(chain)


def test_what_was_asked_for_again_is_loaded_once_more(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    send(stored.kafka, messages)
    load(stored)
    again = [replace(one, headers=one.headers | {"again": "r1"}) for one in messages[:4]]
    send(stored.kafka, [*again, *again])

    load(stored)

    assert len(stored.ledger()) == len(messages) + 4
    stored.check_truth(chain)


def test_poison_of_each_topic_goes_to_dead_letters_and_stops_nobody(
    stored: Stored,
    messages: list[Envelope],
    chain: Chain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poisons = []
    for one in messages[:4]:
        poisons += [
            replace(one, value=b"not ours"),
            replace(one, value=one.value[: len(one.value) // 2]),
            replace(one, headers={}),
            replace(one, headers={"schema": "ForkUpdate"}),
            replace(one, value=b""),
        ]
    misplaced = [replace(one, topic=messages[at - 1].topic) for at, one in enumerate(messages[:4])]
    send(stored.kafka, [*poisons, *misplaced, *messages])

    load(stored)

    stored.check_truth(chain)
    letters = read_letters(stored.kafka, Letters())
    assert len(letters) == len(poisons) + len(misplaced)
    assert {letter.letter.stage for letter in letters} == {"sink"}
    assert {letter.letter.reason_code for letter in letters} == {"HR-3901", ForeignMessage.code}
    assert {letter.letter.topic for letter in letters} == {one.topic for one in messages[:4]}
    config = str(config_file(stored.settings, tmp_path))
    capsys.readouterr()
    assert cli.main(["dlq", "list", "--json", "--config", config]) == ExitCode.ok
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == len(letters)
    assert cli.main(["dlq", "show", listed[0]["id"], "--config", config]) == ExitCode.ok
    assert listed[0]["reason"] in capsys.readouterr().out
    assert cli.main(["dlq", "show", "0:999999", "--config", config]) == ExitCode.usage
    assert "HR-6312" in capsys.readouterr().err


def test_a_letter_is_driven_again(
    stored: Stored,
    messages: list[Envelope],
    chain: Chain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held, rest = messages[5], [*messages[:5], *messages[6:]]
    reason = ForeignMessage(topic=held.topic, reason="a mistake that was mended")
    send(stored.kafka, [*rest, dead_letter(held, 1, 7, reason, "sink", 5)])
    load(stored)
    assert stored.segments() == len(messages) - 1
    config = str(config_file(stored.settings, tmp_path))

    capsys.readouterr()
    assert cli.main(["dlq", "redrive", "--all", "--json", "--config", config]) == ExitCode.ok
    assert len(json.loads(capsys.readouterr().out)["redriven"]) == 1
    assert cli.main(["dlq", "redrive", "--all", "--json", "--config", config]) == ExitCode.ok
    assert json.loads(capsys.readouterr().out)["redriven"] == []

    load(stored)
    stored.check_truth(chain)


def test_messages_that_retention_dropped_unread_stop_the_sink(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    send(stored.kafka, messages)
    name = topic_name(stored.kafka.topic_prefix, "raw.logs.history")
    gone = stored.admin.delete_records([TopicPartition(name, 0, 2)])
    assert all(done.result() for done in gone.values())

    with pytest.raises(OffsetsLost, match=r"partition 0, from offset 0") as caught:
        start_sink(stored.settings).join()

    assert "headrace replay --from 0 --to" in caught.value.fix_text
    assert exit_code_of(caught.value) is ExitCode.halted
    assert stored.committed().get((name, 0), 0) == 0
    load(stored, accept_lost=True)
    assert stored.segments() == len(messages) - 2
    send(stored.kafka, messages)
    load(stored)
    stored.check_truth(chain)


def is_of(message: Envelope, segment: Missing) -> bool:
    """Whether a message holds what a publisher asks for."""
    topic = data_topic(cast("Stream", segment.stream), "history")
    first = int(message.headers["from"])
    return message.topic == topic and segment.from_block <= first <= segment.to_block


def named(stored: Stored, name: str) -> Any:
    """Settings of a worker of that name."""
    kafka = stored.kafka.model_copy(update={"instance": name})
    return stored.settings.model_copy(update={"kafka": kafka})


def test_a_second_sink_of_the_same_name_ends_the_first(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    half = len(messages) // 2
    first = start_sink(named(stored, "same"))
    send(stored.kafka, messages[:half])
    until(stored.all_committed)
    second = start_sink(named(stored, "same"))
    with pytest.raises(InstanceTaken) as caught:
        first.join()
    assert exit_code_of(caught.value) is ExitCode.storage
    send(stored.kafka, messages[half:])
    until(stored.all_committed)
    second.end()
    assert stored.segments() == len(messages)
    stored.check_truth(chain)


def test_two_sinks_share_a_lane_and_one_takes_over_from_the_other(
    stored: Stored, messages: list[Envelope], chain: Chain
) -> None:
    half = len(messages) // 2
    first = start_sink(named(stored, "one"))
    send(stored.kafka, messages[:half])
    until(lambda: stored.segments() > 0)
    second = start_sink(named(stored, "two"))
    send(stored.kafka, messages[half:])
    until(stored.all_committed)
    first.end()
    send(stored.kafka, messages)
    until(stored.all_committed)
    second.end()

    def bring(missing: Sequence[Missing]) -> None:
        asked = [one for one in messages if any(is_of(one, segment) for segment in missing)]
        send(stored.kafka, [replace(one, headers=one.headers | {"again": "r"}) for one in asked])
        load(stored)

    assert stored.segments() == len(messages)
    stored.check_truth(chain, bring)
