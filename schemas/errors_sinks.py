"""Failures of the ClickHouse sinks: HR-40xx; classified by ClickHouse's numeric code."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class ClickHouseUnreachable(Transient):
    """No connection, or it broke; an insert under way may or may not be stored."""

    code = "HR-4001"
    what = "ClickHouse at {address} does not answer: {detail}"
    why = "it is not running, restarting, or the network broke"
    fix = "check that it runs (`headrace status`); it is tried again by itself"


class QueryTimedOut(Transient):
    """ClickHouse ended the query because it ran too long."""

    code = "HR-4002"
    what = "the query ran too long: {detail}"
    why = "max_execution_time was reached (ClickHouse code {clickhouse_code})"
    fix = "narrow it by block_number or address, or raise the limit"


class DiskFull(Transient):
    """ClickHouse cannot write to its disk."""

    code = "HR-4003"
    what = "ClickHouse cannot write to its disk: {detail}"
    why = "the disk is full or failing (ClickHouse code {clickhouse_code})"
    fix = "free space on the data directory's disk; indexing goes on by itself, nothing is lost"


class MemoryLimitReached(Transient):
    """ClickHouse refused to allocate."""

    code = "HR-4004"
    what = "ClickHouse ran into its memory limit: {detail}"
    why = "the query or the whole server would exceed its limit (ClickHouse code 241)"
    fix = "narrow the query, ask for less at once, or give the server more memory"


class TooManyParts(Transient):
    """Inserts outrun merges."""

    code = "HR-4005"
    what = "ClickHouse has too many parts: {detail}"
    why = "inserts outrun merges (ClickHouse code 252)"
    fix = "it is tried again by itself; larger batches make fewer parts"


class TooManyQueries(Transient):
    """ClickHouse is busy."""

    code = "HR-4006"
    what = "ClickHouse is too busy: {detail}"
    why = "too many queries or sessions run at once (ClickHouse code {clickhouse_code})"
    fix = "try again in a moment"


class AccessRefused(Permanent):
    """User, password or grant is missing."""

    code = "HR-4007"
    what = "ClickHouse refused access: {detail}"
    why = "the user, the password or a grant is wrong (ClickHouse code {clickhouse_code})"
    fix = "check the user and password; `analyst` may only read"


class QueryRefused(Permanent):
    """ClickHouse refused the query for a reason that stays."""

    code = "HR-4008"
    what = "ClickHouse refused the query: {detail}"
    why = "ClickHouse code {clickhouse_code}"
    fix = "correct the query"


class UnknownTable(Permanent):
    """Database, table or column is not there."""

    code = "HR-4009"
    what = "ClickHouse does not know it: {detail}"
    why = "the database, table or column does not exist (ClickHouse code {clickhouse_code})"
    fix = "see SHOW DATABASES and SHOW TABLES; a new chain has tables after `headrace run`"


class StorageDamaged(Permanent):
    """ClickHouse found its own files damaged."""

    code = "HR-4010"
    what = "ClickHouse found damaged data: {detail}"
    why = "a file fails its checksum (ClickHouse code {clickhouse_code})"
    fix = "check the disk; restore a backup, or move the data directory away and run again"


class ProtocolBroken(Permanent):
    """The answer could not be understood."""

    code = "HR-4011"
    what = "the answer of {address} could not be understood: {detail}"
    why = "it is not a ClickHouse server's native port, or its version is unknown"
    fix = "check host and port: the native protocol's, not HTTP's"


class SnapshotExpired(Permanent):
    """An as-of query names a canon row that is no longer kept."""

    code = "HR-4012"
    what = "the asked state is not kept any more: {detail}"
    why = "canon rows expire some hours after a newer one was written"
    fix = "ask as of a newer state: SELECT generation, seq, at FROM canon ORDER BY at"


class LayoutChanged(Permanent):
    """A declared table differs from the one that stands in ClickHouse."""

    code = "HR-4013"
    what = "the table {table} stands with another layout than the one declared"
    why = "its declaration (an ABI, or this version's columns) changed since it was made: {detail}"
    fix = (
        "give an event of yours another table name; where a table of Headrace itself changed, "
        "index anew into another directory (`headrace run --data NEW_DIRECTORY`) or ClickHouse"
    )


class DatabaseNewer(Permanent):
    """The database was migrated by a later version."""

    code = "HR-4014"
    what = "the database {database} is at migration {found}; this version knows {known}"
    why = "a later version of headrace has written it"
    fix = "upgrade headrace to that version"


class MigrationChanged(Permanent):
    """An applied migration's text differs from the one shipped."""

    code = "HR-4015"
    what = "migration {number} of {database} was applied with another text"
    why = "migrations are never edited once they were applied"
    fix = "reinstall headrace; if you edited the file, undo it and add a new migration"


class ColumnsMismatch(Permanent):
    """Columns do not fit the table they are written to."""

    code = "HR-4016"
    what = "columns do not fit the table {table}: {detail}"
    why = "the segment was made by another version, or for another declaration"
    fix = "restart every part of headrace with one version; re-ingest the segment"


class LoadMismatch(Permanent):
    """What ClickHouse holds of a load is not what was written."""

    code = "HR-4017"
    what = "load {load_id} of {table} holds {found}, its manifest says {expected}"
    why = "rows were lost or changed after the load was written"
    fix = "the segment is loaded again; if it repeats, check the disk and memory"


class WriteAbandoned(Permanent):
    """A load could not be written in the attempts allowed."""

    code = "HR-4018"
    what = "the load of {stream} blocks {from_block}-{to_block} failed {attempts} times"
    why = "the last failure: {last}"
    fix = "mend the cause, then run again: it goes on where it stopped"


class ServerBusy(Transient):
    """A retryable condition inside ClickHouse."""

    code = "HR-4019"
    what = "ClickHouse could not do it now: {detail}"
    why = "ClickHouse code {clickhouse_code}"
    fix = "it is tried again by itself"


class GridChanged(Permanent):
    """The database was made for another chain, or on another grid."""

    code = "HR-4020"
    what = "the database {database} holds {stored}, and these settings ask for {asked}"
    why = (
        "What is stored lies on one grid of segments and partitions; --source logs has larger "
        "segments than --source receipts; segment_blocks and partition_blocks set them, too."
    )
    fix = (
        "use the --source, segment_blocks and partition_blocks that it was filled with, "
        "or a new data directory"
    )
