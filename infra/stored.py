"""Settings in, a connection to what is stored out: a data directory's, or a cluster's server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.attached import attached, chain_of
from infra.clickhouse.server import RunningServer
from infra.roles.chain_database import role_endpoint, role_facts
from infra.settings import Settings
from schemas.errors_roles import DatabaseNotPrepared
from schemas.errors_sinks import UnknownTable
from sinks.connection import Connection


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a chain is stored."""

    chain: str
    """Name of the chain, and of its database."""
    connection: Connection
    """Its default database is the chain's."""
    data_dir: Path | None
    """The data directory; None where a cluster's server holds it."""
    running: RunningServer | None
    """The server that a run has up on the data directory; None where there is none."""

    @property
    def place(self) -> str:
        """The data directory, or the address of the server."""
        address = self.connection.endpoint.address
        return address if self.data_dir is None else str(self.data_dir)


@contextlib.contextmanager
def stored(settings: Settings, data: Path | None, command: str) -> Iterator[Stored]:
    """Connect to what is stored.

    Parameters
    ----------
    settings
        The command's.
    data
        What `--data` names: that directory. Without it the server of `[clickhouse] url`, if one
        is set, else the data directory of the settings.
    command
        Its name, for errors.

    Raises
    ------
    DataMissing
        No data directory is there.
    ChainNotNamed, DatabaseNotPrepared
        No chain is named for the cluster's server, or it does not have it.
    HeadraceError
        One of HR-40xx, or whatever `EmbeddedServer.start` raises.
    """
    if data is None and settings.clickhouse.url is not None:
        chain = role_facts(settings, command).name
        with Connection(role_endpoint(settings, command).at(chain)) as connection:
            try:
                connection.execute("SELECT chain FROM chain_facts")
            except UnknownTable:
                address = connection.endpoint.address
                reason = "it has no control tables"
                raise DatabaseNotPrepared(database=chain, address=address, reason=reason) from None
            yield Stored(chain, connection, None, None)
        return
    folder = settings.data_dir if data is None else data
    chain = chain_of(folder)
    with (
        attached(folder, settings.limits.server) as server,
        Connection(server.endpoint(database=chain)) as connection,
    ):
        running = server if isinstance(server, RunningServer) else None
        yield Stored(chain, connection, folder, running)
