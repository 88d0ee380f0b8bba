"""A ClickHouse and a chain in, a prepared database with its publisher and sink writer out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from infra.settings import Settings
from infra.settings_cluster import is_loopback
from infra.sink_stage import Arrival
from infra.source import ChainSource
from infra.turns import Turns
from ingest.headwindow import HeadHeader
from processors.abi import Layouts
from processors.aggregate import aggregate_version
from processors.decode import event_version
from schemas.errors_aggregates import AggregatesMissing
from schemas.errors_infra import SettingsOfOtherContent
from schemas.segments import SegmentName
from schemas.tables import CORE_STREAMS, CORE_TABLES, Table
from sinks.batcher import Batcher
from sinks.canon_row import Change, Missing, PublisherSettings
from sinks.canon_table import read_canon
from sinks.connection import Connection, Endpoint
from sinks.known_segments import durable_names
from sinks.member_views import Members, create_member_views
from sinks.migrate import prepare_database
from sinks.publisher import Publisher
from sinks.writer import Writer


class Storage:
    """The ClickHouse side of one run: everything that writes, and what reads it back.

    Parameters
    ----------
    settings
        The run's.
    endpoint
        Where the server listens, and as whom to log in.
    source
        The chain, and what its segments' content versions may be.
    layouts
        Every event's layout and table.
    prepare
        Whether to make what is missing; False where a command has done so (`headrace migrate`),
        and only a publisher or sink is opened.
    """

    def __init__(
        self,
        settings: Settings,
        endpoint: Endpoint,
        source: ChainSource,
        layouts: Layouts,
        *,
        prepare: bool = True,
    ) -> None:
        self.facts, self.chain_id, self.layouts = source.facts, source.chain_id, layouts
        self.tables: tuple[Table, ...] = (*CORE_TABLES, *layouts.tables)
        self.database = self.facts.name
        self._endpoint = endpoint.at(self.database)
        self._limits = settings.limits.pipeline
        self._canon_limits = settings.limits.canon
        if prepare:
            with Connection(endpoint) as admin:
                prepare_database(admin, self.database, self.tables, self.facts, self.chain_id)
                create_member_views(admin, self.database, _members(layouts))
        self._connections: list[Connection] = []
        self.reader = self.connect()
        self.versions = _versions(source, layouts)
        """Content versions that these settings give, by stream."""
        try:
            self._check_content()
        except BaseException:
            self.close()
            raise

    def connect(
        self, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Connection:
        """A connection of its own for one thread; closed with the storage."""
        compression = None if is_loopback(self._endpoint.host) else "lz4"
        connection = Connection(self._endpoint, compression=compression, waiting=waiting)
        self._connections.append(connection)
        return connection

    def publisher(
        self,
        floor: int,
        on_missing: Callable[[Missing], None],
        on_row: Callable[[Change], None],
        *,
        poll_seconds: float | None = None,
        retry_seconds: float = 120.0,
    ) -> Publisher:
        """The chain's publisher, not yet claimed.

        Parameters
        ----------
        floor
            First block to show.
        on_missing, on_row
            See `Publisher`.
        poll_seconds
            How often the ledger is read for loads of other processes; None where there are none.
        retry_seconds
            How long ClickHouse may not answer.
        """
        # In a cluster a segment may be on its way for long: `SegmentRequests` knows, and counts.
        attempts = PublisherSettings().missing_attempts_max if poll_seconds is None else None
        return Publisher(
            self.connect(),
            self.database,
            self.facts,
            dict.fromkeys(CORE_STREAMS),
            floor,
            settings=PublisherSettings(
                poll_seconds=poll_seconds,
                retry_seconds=retry_seconds,
                missing_attempts_max=attempts,
                canon=self._canon_limits,
            ),
            on_missing=on_missing,
            on_row=on_row,
        )

    def writer(self, generation: int, turns: Turns | None = None) -> Writer:
        """A writer of loads for one thread, which leaves its turn while it waits."""
        turns = turns or Turns()
        return Writer(
            self.connect(turns.leave),
            self.database,
            self.tables,
            self.facts.partition_blocks,
            generation=generation,
            sleep=turns.sleep,
        )

    def batcher(self) -> Batcher[Arrival]:
        """What groups segments into loads."""
        return Batcher(self.facts.partition_blocks, self._limits.batch)

    def durable(self, sealed: Sequence[int]) -> set[SegmentName]:
        """Names of the segments of open partitions whose loads may count."""
        return durable_names(self.reader, self.database, self.facts, self.chain_id, sealed)

    def visible_headers(self, from_block: int, to_block: int = 2**63 - 1) -> list[HeadHeader]:
        """Headers of the visible blocks of a range of heights, oldest first."""
        rows = self.reader.execute(
            "SELECT block_number, block_hash, parent_hash, toUnixTimestamp(block_time) "
            "FROM blocks WHERE block_number BETWEEN %(from_block)s AND %(to_block)s "
            "ORDER BY block_number",
            {"from_block": max(0, from_block), "to_block": to_block},
            as_bytes=True,
        )
        return [HeadHeader(*row) for row in rows]

    def visible_floor(self) -> int | None:
        """The first visible block; None where nothing is visible."""
        row = read_canon(self.reader, self.database)
        return None if row is None else row.floor

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()

    def _check_content(self) -> None:
        """Refuse settings under which the same blocks would give other rows.

        Raises
        ------
        SettingsOfOtherContent
        AggregatesMissing
            If what is shown was stored before there were aggregates.
        """
        stored: dict[str, list[str]] = dict(
            self.reader.execute(
                "SELECT stream, groupUniqArray(content_version) FROM ledger GROUP BY stream"
            )
        )
        if "aggregates" not in stored and self.visible_floor() is not None:
            raise AggregatesMissing(database=self.database)
        for stream, versions in stored.items():
            strange = sorted(set(versions) - self.versions.get(stream, set()))
            if strange:
                raise SettingsOfOtherContent(stream=stream, stored=", ".join(strange))


def _versions(source: ChainSource, layouts: Layouts) -> dict[str, set[str]]:
    """Content versions by stream, at any level of verification."""
    raw = source.versions()
    events = {event_version(version, layouts.content_version) for version in raw}
    return {
        "blocks": raw,
        "logs": raw,
        "events": events,
        "aggregates": {aggregate_version(version) for version in events},
    }


def _members(layouts: Layouts) -> list[Members]:
    """The factories of the user's contracts, as the sinks take them."""
    return [
        Members(each.tables, each.factory.address, each.creations_table, each.creations_column)
        for each in layouts.memberships
    ]
