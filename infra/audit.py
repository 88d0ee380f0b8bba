"""Stored tables in, the invariants that hold or break out: what `headrace audit` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from infra.audit_aggregates import STATEMENT, aggregate_invariants, same_aggregator
from infra.audit_checks import (
    Invariant,
    chain_invariants,
    identity_invariants,
    transaction_invariants,
)
from infra.audit_events import Read, check_events, same_layouts
from infra.audit_manifests import check_manifests
from infra.contracts import declare_contracts
from infra.display import Display
from infra.exit_codes import ExitCode
from infra.settings import Settings
from infra.stored import stored
from infra.stored_columns import read_columns
from infra.terminal import counted, show_table
from ingest.reprove import StoredRange, unprovable_headers, verify_stored
from processors.abi import Layouts, build_layouts
from schemas.chains import load_chains
from schemas.columns import ColumnBlock
from schemas.errors_settings import DataMissing, RangeInvalid, RangeNotVisible
from schemas.errors_sinks import SnapshotExpired
from schemas.tables import BLOCKS, CORE_TABLES, LOGS, TRANSACTION_TABLE, WITHDRAWALS, Table
from sinks.canon_row import CanonRow
from sinks.canon_table import read_canon
from sinks.connection import Connection

PART_BLOCKS = 500
"""Blocks that are read back and proven at a time."""
SUMMED_BLOCKS = 5_000
"""Blocks whose events ClickHouse adds up at a time."""
FINDINGS_MAX = 20
"""Findings of one invariant that are shown."""
SWEPT_MAX = 5
"""How often the canon row may be swept while one part is checked."""
NOT_CHECKED = (
    ("I7", "supply and balances agree with the tokens' own answers: needs balances, not kept yet"),
    ("I9", "committed offsets are durable: a cluster's tests compare it; `run` has no offsets"),
    ("I11", "the result equals a fault-free run's: the tests compare it, an audit cannot"),
)
OTHER_AGGREGATOR = (
    "I8",
    "aggregates are what the events add up to: the aggregator has changed since they were made",
)
NO_RECEIPTS = ("I4", "logs are as many as the receipts say: none of these blocks has receipts")
OTHER_LAYOUTS = (
    "I8",
    (
        "decoded events are what the logs decode to: other contracts are declared than when they "
        "were decoded, or the decoder has changed; name the settings of the run with --config"
    ),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one invariant's check found."""

    code: str
    """``I1`` …"""
    statement: str
    """What must hold."""
    broken: tuple[tuple[int, str], ...]
    """(block number, what is wrong); empty where it holds."""


def run_audit(
    settings: Settings,
    from_block: int | None,
    to_block: int | None,
    display: Display,
    *,
    data: Path | None = None,
) -> int:
    """Check every invariant on the visible range, or the part of it that is given.

    Parameters
    ----------
    settings
        Say where the chain is stored, and name the contracts whose tables are checked, too.
    from_block, to_block
        Bounds, included; None takes the visible range's.
    display
        Where findings are shown.
    data
        The data directory that was named by hand; see `stored`.

    Returns
    -------
    int
        1 where an invariant is broken, else 0.

    Raises
    ------
    DataMissing
        Nothing is visible.
    RangeInvalid
        The first is above the last.
    RangeNotVisible
        They are not within the visible range.
    """
    layouts = build_layouts(declare_contracts(settings))
    with stored(settings, data, "audit") as at:
        row = read_canon(at.connection, at.chain)
        if row is None:
            raise DataMissing(path=at.place, reason="No block is visible in it yet")
        first = row.floor if from_block is None else from_block
        last = row.head.number if to_block is None else to_block
        if from_block is not None and to_block is not None and first > last:
            raise RangeInvalid(from_block=first, to_block=last)
        if not row.floor <= first <= last <= row.head.number:
            raise RangeNotVisible(
                from_block=min(first, last),
                to_block=max(first, last),
                floor=row.floor,
                head=row.head.number,
            )
        audit = Audit(at.connection, at.chain, layouts, row)
        findings = []
        for finding in audit.run(first, last):
            findings.append(finding)
            if not display.terminal.json:
                verdict = "BROKEN" if finding.broken else "ok"
                display.note(f"{finding.code:<5} {verdict:<6} {finding.statement}")
    _show(display, findings, audit.not_checked, first, last)
    return int(ExitCode.failed if any(finding.broken for finding in findings) else ExitCode.ok)


class Audit:
    """The checks on one chain's database.

    Parameters
    ----------
    connection
        Its default database is the chain's.
    database
        The chain's database.
    layouts
        Of the events whose tables are checked, beside the core tables.
    row
        The canon row to begin with.
    """

    def __init__(
        self, connection: Connection, database: str, layouts: Layouts, row: CanonRow
    ) -> None:
        self._connection, self._database, self._layouts = connection, database, layouts
        self._row = row
        self._tables = _present(connection, (*CORE_TABLES, *layouts.tables))
        self._facts = load_chains()[database]
        self.not_checked = list(NOT_CHECKED)
        """(invariant, why) of what the audit leaves out."""
        self._unprovable: dict[int, dict[str, int]] = {}
        """By the first block of each part: how many headers have no hash to compare, and why."""

    def run(self, first: int, last: int) -> Iterator[Finding]:
        """Check one invariant after the other.

        Whatever is compared is read as of one canon row: the first one, or, where that was swept
        meanwhile, as it is some minutes after a partition was sealed, the newest.

        Raises
        ------
        SnapshotExpired
            Rows were swept faster than a part was checked, or the newest no longer shows the range.
        """
        checks = (
            *chain_invariants(),
            *transaction_invariants(),
            *identity_invariants(self._tables),
        )
        if not self._has_receipts(first, last):
            checks = tuple(check for check in checks if check.code != "I4")
            self.not_checked.append(NO_RECEIPTS)
        merged: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for check in checks:
            found = self._query(check, first, last)
            merged.setdefault((check.code, check.statement), []).extend(found)
        for (code, statement), broken in merged.items():
            if code != "I6" or broken:
                yield Finding(code, statement, tuple(broken[:FINDINGS_MAX]))
        if not any(broken for (code, _), broken in merged.items() if code == "I6"):
            many = len(self._tables)
            held = f"no row is visible twice, or without its block and time, in {many} tables"
            yield Finding("I6", held, ())
        yield Finding(
            "I2/I3",
            "header hashes and roots, computed again from the stored columns, are the stored ones",
            tuple(self._in_parts(self._prove, first, last)),
        )
        self.not_checked += self._unproven(first, last)
        if same_layouts(self._connection, self._layouts):
            yield Finding(
                "I8",
                "decoded events are what the stored logs decode to",
                tuple(self._in_parts(self._decode, first, last)),
            )
        else:
            self.not_checked.append(OTHER_LAYOUTS)
        if same_aggregator(self._connection):
            yield Finding(
                "I8", STATEMENT, tuple(islice(self._aggregate(first, last), FINDINGS_MAX))
            )
        else:
            self.not_checked.append(OTHER_AGGREGATOR)
        yield Finding(
            "I10",
            "every visible load and sealed partition holds the rows that its manifest says",
            tuple(self._manifests()),
        )

    def _as_of(self, read: Callable[[dict[str, object]], T], first: int, last: int) -> T:
        """Read a range as of our canon row, or the newest where that is not kept any more."""
        for _ in range(SWEPT_MAX):
            try:
                return read(as_of(self._row))
            except SnapshotExpired:
                newest = read_canon(self._connection, self._database)
                if newest is None or not newest.floor <= first <= last <= newest.head.number:
                    raise
                self._row = newest
        return read(as_of(self._row))

    def _has_receipts(self, first: int, last: int) -> bool:
        """Whether any block of the range was stored with its receipts."""
        sql = (
            "SELECT countIf(log_count IS NOT NULL) FROM blocks "
            f"WHERE block_number BETWEEN {first} AND {last}"
        )
        found = self._as_of(lambda of: self._connection.value(sql, settings=of), first, last)
        return bool(found)

    def _manifests(self) -> Iterator[tuple[int, str]]:
        # Of now: what an older row names in T_open is dropped some time after a seal.
        now = read_canon(self._connection, self._database) or self._row
        return check_manifests(self._connection, self._database, self._tables, now)

    def _query(self, check: Invariant, first: int, last: int) -> list[tuple[int, str]]:
        sql = check.sql.format(from_block=first, to_block=last)
        rows = self._as_of(lambda of: self._connection.execute(sql, settings=of), first, last)
        return [(int(number), str(what)) for number, what in rows]

    def _aggregate(self, first: int, last: int) -> Iterator[tuple[int, str]]:
        """What differs in the aggregates, a part of the range after the other."""
        checks = aggregate_invariants()
        for start in range(first, last + 1, SUMMED_BLOCKS):
            end = min(start + SUMMED_BLOCKS - 1, last)
            for check in checks:
                yield from self._query(check, start, end)

    def _in_parts(
        self,
        check: Callable[[Read], Iterable[tuple[int, str]]],
        first: int,
        last: int,
    ) -> Iterator[tuple[int, str]]:
        """What a check finds that reads rows back, a part of the range after the other."""
        found = 0
        for start in range(first, last + 1, PART_BLOCKS):
            end = min(start + PART_BLOCKS - 1, last)
            for finding in self._as_of(partial(self._check_part, check, start, end), start, end):
                yield finding
                found += 1
                if found >= FINDINGS_MAX:
                    return

    def _check_part(
        self,
        check: Callable[[Read], Iterable[tuple[int, str]]],
        first: int,
        last: int,
        settings: dict[str, object],
    ) -> list[tuple[int, str]]:
        """What a check finds in one part, as much of it as is shown."""

        def read(table: Table) -> ColumnBlock:
            return read_columns(
                self._connection,
                table,
                "block_number BETWEEN %(first)s AND %(last)s",
                {"first": first, "last": last},
                settings=settings,
            )

        return list(islice(check(read), FINDINGS_MAX))

    def _prove(self, read: Read) -> Iterator[tuple[int, str]]:
        stored = StoredRange(
            read(BLOCKS),
            read(TRANSACTION_TABLE),
            read(LOGS),
            read(WITHDRAWALS) if self._facts.withdrawals_in_header else None,
        )
        unprovable = unprovable_headers(stored.blocks)
        if unprovable:
            heights: Any = stored.blocks.columns["block_number"]
            self._unprovable[int(heights.min())] = unprovable
        for violation in verify_stored(stored):
            yield violation.block_number, f"0x{violation.block_hash.hex()}: {violation.what}"

    def _unproven(self, first: int, last: int) -> Iterator[tuple[str, str]]:
        """How many blocks could not be proven again, and why."""
        total = last - first + 1
        reasons: Counter[str] = Counter()
        for part in self._unprovable.values():
            reasons.update(part)
        for reason, count in sorted(reasons.items()):
            yield "I2", f"header hashes of {counted(count)} of {counted(total)} blocks: {reason}"
        sql = (
            "SELECT toString(verification), count() FROM blocks WHERE verification < 'receipts' "
            f"AND block_number BETWEEN {first} AND {last} GROUP BY verification ORDER BY 1"
        )
        rows = self._as_of(lambda of: self._connection.execute(sql, settings=of), first, last)
        for level, count in rows:
            what = f"roots of {counted(int(count))} of {counted(total)} blocks"
            yield "I3", f"{what}: they were stored with the verification `{level}`"

    def _decode(self, read: Read) -> Iterator[tuple[int, str]]:
        return check_events(read, self._layouts)


def as_of(row: CanonRow) -> dict[str, object]:
    """Settings under which every view shows the chain as of one canon row."""
    return {"query_cache_tag": f"as_of={row.generation}:{row.seq}"}


def _present(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    """The tables that the database has a view of."""
    rows = connection.execute("SELECT name FROM system.tables WHERE database = currentDatabase()")
    names = {name for (name,) in rows}
    return [table for table in tables if table.name in names]


def _show(
    display: Display,
    findings: Sequence[Finding],
    not_checked: Sequence[tuple[str, str]],
    first: int,
    last: int,
) -> None:
    terminal = display.terminal
    if terminal.json:
        terminal.write_json(
            {
                "from_block": first,
                "to_block": last,
                "ok": not any(finding.broken for finding in findings),
                "invariants": [
                    {
                        "code": finding.code,
                        "statement": finding.statement,
                        "broken": [{"block_number": n, "what": what} for n, what in finding.broken],
                    }
                    for finding in findings
                ],
                "not_checked": [{"code": code, "why": why} for code, why in not_checked],
            }
        )
        return
    rows = [(f.code, number, what) for f in findings for number, what in f.broken]
    if rows:
        show_table(terminal, "what breaks an invariant", ("invariant", "block", "what"), rows)
    for code, why in not_checked:
        display.note(f"{code:<5} not checked: {why}", "dim")
    blocks = last - first + 1
    broken = len({row[0] for row in rows})
    verdict = f"{broken} invariant(s) broken" if broken else "every invariant checked holds"
    display.note(f"{counted(blocks)} blocks, {first:,} to {last:,}: {verdict}")
