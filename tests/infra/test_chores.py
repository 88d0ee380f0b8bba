"""A chore that is put aside is logged with its code, its blocks and the replay to run."""

from __future__ import annotations

from structlog.testing import capture_logs

from infra.chores import log_put_aside
from schemas.errors_canon import FoldMismatch
from sinks.put_aside import RETRY_SECONDS, Task


def test_the_log_line_names_code_blocks_replay_and_retry() -> None:
    error = FoldMismatch(
        from_block=20,
        to_block=29,
        table="logs",
        rows=1,
        checksum=1,
        manifest_rows=2,
        manifest_checksum=2,
    )
    with capture_logs() as said:
        log_put_aside(Task("fold", frozenset({1}), 20, 29), error)
        log_put_aside(Task("sweep"), error)

    fold, sweep = said
    assert (fold["event"], fold["code"], fold["chore"]) == ("chore_put_aside", "HR-4505", "fold")
    assert (fold["from_block"], fold["to_block"]) == (20, 29)
    assert fold["replay"] == "headrace replay --from 20 --to 29"
    assert fold["retry_seconds"] == RETRY_SECONDS
    assert sweep["chore"] == "sweep"
    assert "replay" not in sweep
