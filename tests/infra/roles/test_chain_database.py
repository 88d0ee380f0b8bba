"""A role that is not told its chain or its ClickHouse says so at once, whatever Kafka does."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from infra.exit_codes import ExitCode

CLICKHOUSE = '[clickhouse]\nurl = "clickhouse://default@127.0.0.1:9"\n'
NOWHERE = '[kafka]\nbootstrap = ["127.0.0.1:9"]\nunreachable_seconds_max = 3600\n'


@pytest.mark.parametrize("role", ["sink", "publish"])
@pytest.mark.parametrize(
    ("given", "code"), [(CLICKHOUSE, "HR-6301"), ('chain = "local"\n', "HR-6302")]
)
def test_settings_are_looked_at_before_kafka_is_waited_for(
    role: str, given: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text(given + NOWHERE)
    assert main([role, "--config", str(config)]) == ExitCode.usage
    assert code in capsys.readouterr().err
