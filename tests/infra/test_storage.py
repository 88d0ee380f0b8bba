"""A database that these settings or this version may not go on with is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.clickhouse.server import EmbeddedServer
from infra.settings import Settings
from infra.source import ChainSource
from infra.storage import Storage
from processors.abi import build_layouts
from schemas.chains import load_chains
from schemas.errors_aggregates import AggregatesMissing
from schemas.errors_infra import SettingsOfOtherContent
from schemas.segments import SegmentName
from sinks.ledger import LedgerRow, append_ledger

LAYOUTS = build_layouts()
FACTS = load_chains()["local"].resized(10, 100)
SHOWN = (
    "INSERT INTO local.canon (generation, seq, at, floor, head, head_hash, sealed, loads) "
    "SELECT 1, 1, now64(3), 0, 9, unhex(repeat('0a', 32)), [], [5]"
)


def test_what_was_stored_otherwise_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    source = ChainSource(settings, FACTS, 7)
    with EmbeddedServer(tmp_path / "data", chain="local", chain_id=7) as server:

        def open_storage() -> Storage:
            return Storage(settings, server.endpoint(), source, LAYOUTS)

        storage = open_storage()
        versions = {stream: min(found) for stream, found in storage.versions.items()}
        name = SegmentName(7, "events", "history", 0, 9, bytes(32), versions["events"])

        def store(stream: str, version: str) -> None:
            row = LedgerRow(stream, name.lane, 0, 9, name.last_hash, version, 1, 5, (), (), ())  # type: ignore[arg-type]
            append_ledger(storage.reader, "local", [row])

        store("events", versions["events"])
        # Killed before the first aggregates were stored: nothing is shown, and the run goes on.
        open_storage().close()
        storage.reader.execute(SHOWN)
        with pytest.raises(AggregatesMissing) as missing:
            open_storage()
        assert missing.value.code == "HR-6601"
        store("aggregates", versions["aggregates"])
        open_storage().close()
        store("aggregates", "0" * 16)
        with pytest.raises(SettingsOfOtherContent):
            open_storage()
        storage.close()
