"""`headrace topics` against a real broker: made, shown, changed, checked, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import cli
from infra.exit_codes import ExitCode
from infra.settings_cluster import KafkaSettings
from schemas.topics import TOPICS


@pytest.fixture
def file(tmp_path: Path, kafka_settings: KafkaSettings) -> Path:
    return write(tmp_path / "headrace.toml", kafka_settings)


def write(path: Path, kafka: KafkaSettings, **more: int) -> Path:
    lines = [
        "[kafka]",
        f'bootstrap = "{kafka.bootstrap[0]}"',
        f'topic_prefix = "{kafka.topic_prefix}"',
        *(f"{key} = {value}" for key, value in more.items()),
    ]
    path.write_text("\n".join(lines))
    return path


def test_topics_are_made_shown_and_checked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["topics", "check", "--config", str(file)]) == ExitCode.storage
    assert "headrace topics create" in capsys.readouterr().err

    assert cli.main(["topics", "create", "--config", str(file), "--json"]) == ExitCode.ok
    made = json.loads(capsys.readouterr().out)
    assert made["created"] == [one["name"] for one in made["topics"]]
    assert len(made["created"]) == len(TOPICS)
    assert all(one["differences"] == [] for one in made["topics"])

    assert cli.main(["topics", "create", "--config", str(file)]) == ExitCode.ok
    assert "nothing to do" in capsys.readouterr().out
    assert cli.main(["topics", "check", "--config", str(file)]) == ExitCode.ok


def test_topics_are_changed_with_the_settings(
    file: Path, kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    write(file, kafka, partitions=5, retention_hours=1)

    assert cli.main(["topics", "describe", "--config", str(file)]) == ExitCode.ok
    shown = capsys.readouterr().out
    assert "4 partitions instead of 5" in shown
    assert "168 h" in shown

    assert cli.main(["topics", "alter", "--config", str(file)]) == ExitCode.ok
    assert "events.head: it was 4 partitions" in capsys.readouterr().out
    assert cli.main(["topics", "alter", "--config", str(file)]) == ExitCode.ok
    assert "nothing to do" in capsys.readouterr().out


def test_brokers_that_are_away_are_named(
    tmp_path: Path, dead_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "headrace.toml",
        KafkaSettings(bootstrap=(dead_address,)),
        unreachable_seconds_max=1,
    )

    assert cli.main(["topics", "describe", "--config", str(file)]) == ExitCode.storage
    told = capsys.readouterr().err
    assert "HR-6001" in told
    assert dead_address in told
