"""A data directory or a cluster's server in, what its audit says out: of all, of a range."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.audit import Audit, run_audit
from infra.audit_aggregates import STATEMENT
from infra.contracts import declare_contracts
from infra.display import Display
from infra.settings import Contract, Settings
from infra.terminal import open_terminal
from processors.abi import build_layouts
from schemas.errors_settings import DataMissing, RangeInvalid, RangeNotVisible
from schemas.errors_sinks import SnapshotExpired
from schemas.tables import BLOCKS, LOGS, TRANSACTION_TABLE
from sinks.canon_table import append_canon, forget_before
from tests.e2e.running import CHAIN
from tests.infra.conftest import HEAD, Indexed, audit


def test_what_was_indexed_breaks_nothing(indexed: Indexed, said: Any) -> None:
    assert said() == []
    assert indexed.said_while_running["ok"] is True
    assert indexed.said_while_running["to_block"] == HEAD
    codes = {invariant["code"] for invariant in indexed.said_while_running["invariants"]}
    assert codes == {"I1", "I2/I3", "I3", "I4", "I5", "I6", "I8", "I10"}


def test_only_the_range_that_is_asked_for_is_checked(indexed: Indexed, said: Any) -> None:
    with indexed.tamperer.restoring(TRANSACTION_TABLE):
        place, row = indexed.tamperer.visible(TRANSACTION_TABLE, "block_number >= 30")
        number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
        indexed.tamperer.change(place, row, value_wei="value_wei + 1")
        assert said(0, number - 1) == []
        assert {n for _, n, _ in said(number, number)} == {number}


def test_what_other_contracts_decoded_is_not_called_broken(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = Contract(
        name="plum", events=("event Plum(uint256 weight)",), events_declared_at=("a test",)
    )
    assert audit(indexed.data, contracts=(contract,)) == 0
    answer = json.loads(capsys.readouterr().out)
    # The aggregates are made of the stored events, whatever these were decoded by.
    (checked,) = [one for one in answer["invariants"] if one["code"] == "I8"]
    assert checked["statement"] == STATEMENT
    assert any("--config" in one["why"] for one in answer["not_checked"])


def test_blocks_that_cannot_be_proven_again_are_counted(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    with indexed.tamperer.restoring(BLOCKS):
        place, row = indexed.tamperer.visible(BLOCKS, "block_number >= 30")
        number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
        unknown = """'{"newField":"0x1"}'"""
        indexed.tamperer.change(place, row, verification="'off'", extra=unknown, gas_limit="5")
        assert audit(indexed.data, number - 4, number + 5) == 0
    why = [one["why"] for one in json.loads(capsys.readouterr().out)["not_checked"]]
    assert (
        "header hashes of 1 of 10 blocks: they have fields that this version does not know: "
        "newField"
    ) in why
    assert "roots of 1 of 10 blocks: they were stored with the verification `off`" in why


def test_a_range_that_is_not_visible_is_refused(indexed: Indexed, tmp_path: Path) -> None:
    for bounds in ((0, HEAD + 1), (HEAD + 5, None)):
        with pytest.raises(RangeNotVisible, match="HR-1032"):
            audit(indexed.data, *bounds)
    with pytest.raises(RangeInvalid, match="HR-1007"):
        audit(indexed.data, 9, 8)
    with pytest.raises(DataMissing):
        audit(tmp_path / "nothing")


def test_a_clusters_server_is_audited(indexed: Indexed) -> None:
    at = indexed.connection.endpoint
    url = f"clickhouse://{at.user}:{at.password}@{at.address}"
    settings = Settings(chain=CHAIN, clickhouse={"url": url})
    display = Display(open_terminal(json=True))
    assert run_audit(settings, None, None, display) == 0
    assert run_audit(settings, None, None, display, data=indexed.data) == 0
    with indexed.tamperer.restoring(LOGS):
        place, row = indexed.tamperer.visible(LOGS, "block_number > 20")
        indexed.tamperer.change(place, row, data="concat(data, 'x')")
        assert run_audit(settings, None, None, display) == 1


def test_an_audit_goes_on_where_its_canon_row_is_swept_meanwhile(indexed: Indexed) -> None:
    connection, row = indexed.connection, indexed.tamperer.row
    layouts = build_layouts(declare_contracts(Settings(data_dir=indexed.data)))
    found = Audit(connection, CHAIN, layouts, row).run(0, HEAD)
    seen = [next(found)]
    append_canon(connection, CHAIN, replace(row, seq=row.seq + 1), datetime.now(UTC))
    forget_before(connection, CHAIN, (row.generation, row.seq + 1))
    seen += found
    assert not any(one.broken for one in seen)
    assert {"I2/I3", "I8", "I10"} <= {one.code for one in seen}
    with pytest.raises(SnapshotExpired):
        list(Audit(connection, CHAIN, layouts, row).run(0, HEAD + 1))


def test_people_read_what_is_broken_and_where(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    with indexed.tamperer.restoring(LOGS):
        place, row = indexed.tamperer.visible(LOGS, "block_number > 20")
        number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
        indexed.tamperer.change(place, row, data="concat(data, 'x')")
        settings = Settings(data_dir=indexed.data)
        assert run_audit(settings, number, number, Display(open_terminal())) == 1
    text = capsys.readouterr().out
    assert "I2/I3 BROKEN" in text
    assert f"{number}\t" in text
    assert "1 blocks" in text
