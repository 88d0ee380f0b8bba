"""Logs are events with keys, on standard error, and hold no secret."""

from __future__ import annotations

import json

import pytest
import structlog

from infra.logs import configure_logs, redact_text


def test_lines_are_json_with_event_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(json=True)
    structlog.get_logger().info("reorg_applied", chain_id=1, depth_blocks=3)

    shown = capsys.readouterr()
    line = json.loads(shown.err)
    assert (line["event"], line["chain_id"], line["depth_blocks"]) == ("reorg_applied", 1, 3)
    assert line["level"] == "info"
    assert shown.out == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_redacted_wherever_they_stand(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(json=as_json)
    log = structlog.get_logger()
    url = "https://user:hidden1@rpc.example/v2/hidden2?key=hidden3"
    log.info("asked", endpoint=url, urls=[url], nested={"url": url}, password="hidden4")
    try:
        raise OSError(f"cannot reach {url}")
    except OSError:
        log.exception(f"failed at {url}")

    shown = capsys.readouterr().err
    assert "hidden" not in shown
    assert "rpc.example#" in shown


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(json=True, level="warning")
    structlog.get_logger().info("unseen")
    structlog.get_logger().warning("seen")

    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["seen"]


def test_text_around_a_url_is_kept() -> None:
    shown = redact_text("a wss://host.example/secret-path, b")

    assert shown.startswith("a host.example#")
    assert shown.endswith(" b")
    assert "secret" not in shown
