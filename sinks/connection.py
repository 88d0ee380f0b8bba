"""SQL and columns in, rows and coded errors out: the one way to ClickHouse.

A thin wrapper on clickhouse-driver. Whatever the driver raises leaves as an error of our tree,
classified by ClickHouse's numeric code. A broken connection is opened again by the next call.
"""

from __future__ import annotations

import logging
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from clickhouse_driver import errors as driver

from schemas import errors_sinks as failures
from schemas.errors import HeadraceError
from sinks.native import NativeBlock, NativeClient

# The driver warns, with a traceback, of each failure that it also raises: ours are enough, unless
# the application has set up handlers of its own.
logging.getLogger("clickhouse_driver").addHandler(logging.NullHandler())

CONNECT_TIMEOUT_SECONDS = 10.0
QUERY_TIMEOUT_SECONDS = 300.0

INSERT_SETTINGS: dict[str, object] = {
    # One INSERT is one block is one part: all of a load's rows of a table appear at once.
    "max_insert_block_size": 1 << 32,
    "max_insert_block_size_bytes": 0,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
    "async_insert": 0,
    # Nothing depends on ClickHouse's deduplication: a retry comes under a new load_id.
    "deduplicate_insert": "disable",
    # A load belongs to one partition; an insert across several would be several parts.
    "max_partitions_per_insert_block": 1,
    "throw_on_max_partitions_per_insert_block": 1,
}

_BY_CODE: dict[int, type[HeadraceError]] = {
    **dict.fromkeys((159, 160), failures.QueryTimedOut),
    **dict.fromkeys((75, 76, 243), failures.DiskFull),
    **dict.fromkeys((241,), failures.MemoryLimitReached),
    **dict.fromkeys((252,), failures.TooManyParts),
    **dict.fromkeys((202, 373, 700), failures.TooManyQueries),
    **dict.fromkeys((192, 193, 194, 291, 452, 497, 516), failures.AccessRefused),
    **dict.fromkeys((47, 60, 81), failures.UnknownTable),
    **dict.fromkeys((40, 79, 117, 228, 246, 271, 354), failures.StorageDamaged),
    **dict.fromkeys((395,), failures.SnapshotExpired),
    # Shutting down, parts in use, keeper hiccups, network between servers.
    **dict.fromkeys(
        (
            *(32, 209, 210, 225, 236, 242, 279, 285, 319, 384, 388, 394, 425, 439, 499, 517),
            *(570, 574, 999),
        ),
        failures.ServerBusy,
    ),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ClickHouse server listens, and as whom to log in."""

    host: str
    """Host name or address."""
    port: int
    """Port of the native protocol."""
    user: str = "default"
    """User name."""
    password: str = field(default="", repr=False)
    """The user's password; never shown."""
    database: str = ""
    """Database for unqualified names; '' is the server's default."""
    http_port: int = 0
    """Port of the HTTP interface, 0 where it is unknown."""
    secure: bool = False
    """Whether to speak TLS."""
    verify: bool = True
    """Whether the server's certificate is checked, with TLS."""
    ca: str | None = None
    """File of the authorities that may sign it; None takes the system's."""

    @property
    def address(self) -> str:
        """host:port, for showing."""
        return f"{self.host}:{self.port}"

    def at(self, database: str) -> Endpoint:
        """The same server with another default database."""
        return replace(self, database=database)

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Parse ``clickhouse://user:password@host:9000/database`` (``clickhouses`` for TLS).

        Raises
        ------
        ValueError
            If it is not such a URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("clickhouse", "clickhouses") or not parts.hostname:
            raise ValueError("a ClickHouse URL looks like clickhouse://user:password@host:9000")
        secure = parts.scheme == "clickhouses"
        return cls(
            parts.hostname,
            parts.port or (9440 if secure else 9000),
            unquote(parts.username or "default"),
            unquote(parts.password or ""),
            parts.path.strip("/"),
            secure=secure,
        )


class Connection:
    """One connection; calls from several threads wait for one another.

    Parameters
    ----------
    endpoint
        Where to connect.
    compression
        ``lz4`` for a server over a network; None on loopback, where it only costs CPU.
    settings
        ClickHouse settings of every query.
    waiting
        Entered around every call, which waits for the server most of its time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        compression: str | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        settings: Mapping[str, object] | None = None,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        query_timeout_seconds: float = QUERY_TIMEOUT_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._waiting = waiting
        self._client = NativeClient(
            endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            database=endpoint.database,
            secure=endpoint.secure,
            verify=endpoint.verify,
            ca_certs=endpoint.ca or (_system_authorities() if endpoint.secure else None),
            client_name="headrace",
            compression=compression or False,
            connect_timeout=connect_timeout_seconds,
            send_receive_timeout=query_timeout_seconds,
            sync_request_timeout=connect_timeout_seconds,
            settings=dict(settings or {}),
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def execute(
        self,
        sql: str,
        params: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        as_bytes: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run a query and return its rows.

        Parameters
        ----------
        sql
            The query; values as ``%(name)s``.
        params
            The values.
        settings
            ClickHouse settings of this query.
        as_bytes
            Return String and FixedString as bytes, exactly as stored.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        with self._guarded():
            rows: list[tuple[Any, ...]] | None = self._client.execute(
                sql,
                dict(params) if params else None,
                settings={**(settings or {}), "strings_as_bytes": as_bytes},
            )
        return rows or []

    def execute_with_types(
        self, sql: str, *, settings: Mapping[str, object] | None = None
    ) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
        """Run a query; return its rows, and its columns as (name, ClickHouse type).

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        with self._guarded():
            rows, columns = self._client.execute(
                sql, with_column_types=True, settings=dict(settings or {})
            )
        return rows, columns

    def value(
        self,
        sql: str,
        params: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
    ) -> Any:
        """The first column of the query's only row.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        return self.execute(sql, params, settings=settings)[0][0]

    def insert_rows(
        self,
        table: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Insert a few Python rows, as one part: for control tables.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        if not rows:
            return
        names = ", ".join(columns)
        with self._guarded():
            self._client.execute(
                f"INSERT INTO {table} ({names}) VALUES",
                [tuple(row) for row in rows],
                settings={**INSERT_SETTINGS, **(settings or {})},
            )

    def insert_block(
        self, table: str, block: NativeBlock, settings: Mapping[str, object] | None = None
    ) -> None:
        """Insert a block of raw columns, as one part.

        Raises
        ------
        ColumnsMismatch
            If the table's columns are not the block's; nothing was written then.
        HeadraceError
            Another of HR-40xx.
        """
        if not block.rows:
            return
        names = ", ".join(name for name, _, _ in block.columns)
        sql = f"INSERT INTO {table} ({names}) FORMAT Native"
        with self._guarded():
            differing = self._client.insert_block(
                sql, block, {**INSERT_SETTINGS, **(settings or {})}
            )
        if differing is not None:
            detail = _difference(block, differing)
            raise failures.ColumnsMismatch(table=table, detail=detail)

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        with self._lock:
            self._client.disconnect()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Serialise callers; turn what the driver raises into our tree."""
        with self._waiting(), self._lock:
            try:
                yield
            except driver.ServerException as error:
                raise from_server(error.code or 0, error.message or "") from error
            except (driver.NetworkError, driver.SocketTimeoutError, OSError, EOFError) as error:
                detail = str(error) or "the connection was closed"
                raise failures.ClickHouseUnreachable(
                    address=self.endpoint.address, detail=detail
                ) from error
            except (
                driver.Error,
                ValueError,
                TypeError,
                LookupError,
                RuntimeError,
                struct.error,
                AttributeError,
                ArithmeticError,
            ) as error:
                self._client.disconnect()
                raise failures.ProtocolBroken(
                    address=self.endpoint.address, detail=f"{type(error).__name__}: {error}"
                ) from error


def _system_authorities() -> str | None:
    """The system's file of authorities; the driver would take certifi's instead."""
    return ssl.get_default_verify_paths().cafile


def from_server(code: int, message: str) -> HeadraceError:
    """The error of our tree for a ClickHouse exception, by its numeric code."""
    kind = _BY_CODE.get(code, failures.QueryRefused)
    return kind(detail=_first_sentence(message), clickhouse_code=code)


def _first_sentence(message: str) -> str:
    """The message without its class name and stack trace, for showing."""
    text = message.split("Stack trace:", maxsplit=1)[0].strip()
    return text.removeprefix("DB::Exception:").strip().rstrip(". ")[:1000]


def _difference(block: NativeBlock, table: Sequence[tuple[str, str]]) -> str:
    """The first column that differs, in words."""
    ours = [(name, type_) for name, type_, _ in block.columns]
    for mine, theirs in zip(ours, table, strict=False):
        if tuple(mine) != tuple(theirs):
            return f"{' '.join(mine)} is written where the table has {' '.join(theirs)}"
    return f"{len(ours)} columns are written where the table has {len(table)}"
