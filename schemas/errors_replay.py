"""Failures of a replay: HR-64xx."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class ReplayStalled(Permanent):
    """Segments that were asked for do not come."""

    code = "HR-6401"
    what = (
        "{missing} of {asked} segments did not come again within {seconds:.0f} s; the first is "
        "{stream} {from_block}-{to_block}"
    )
    why = "no ingester serves the topic `requests`, or a stage behind it stands still"
    fix = (
        "see that `headrace ingest` (with the lane history), `process` and `sink` run for this "
        "chain, look into `headrace dlq list`, then run the replay again"
    )


class ReplayRangeEmpty(Permanent):
    """No whole segment of the range can be replayed."""

    code = "HR-6402"
    what = "nothing of blocks {from_block} to {to_block} can be replayed"
    why = (
        "a replay takes whole segments of blocks that are visible and final: here {floor} to "
        "{final}, on a grid of {segment_blocks}; above them, in a cluster, blocks that were sent"
    )
    fix = (
        "name a range within them; what is not final yet is repaired by the pipeline itself, and "
        "what was never sent comes with `headrace ingest`"
    )


class ReplayOtherChain(Permanent):
    """The endpoints have other final blocks than those that are stored."""

    code = "HR-6403"
    what = "segment {from_block}-{to_block} ends in another block than the one that is shown"
    why = "the endpoints serve another fork, or a reorg went below what was final"
    fix = "check the endpoints; a replay mends rows, and never takes another chain"


class MendMismatch(Permanent):
    """A mended load does not hold what it was made of."""

    code = "HR-6404"
    what = (
        "the mended load of {table}, blocks {from_block} to {to_block}, holds {rows} rows where "
        "{manifest_rows} came again"
    )
    why = "rows were lost or changed in ClickHouse while they were copied"
    fix = "nothing was shown of it; check the disk and run the replay again"


class SealedUnnamed(Permanent):
    """A sealed partition lacks blocks outside of the range that came again."""

    code = "HR-6406"
    what = "partition {partition} cannot be opened: it lacks blocks of {from_block} to {to_block}"
    why = "more of it is lost than came again, and its blocks tell which ledger rows are theirs"
    fix = "run the replay again for a range that holds blocks {from_block} to {to_block}, too"


class CanonMoved(Transient):
    """What was to be mended is no longer shown so."""

    code = "HR-6405"
    what = "the loads of {database} changed while they were mended"
    why = "they were folded or sealed meanwhile by the publisher"
    fix = "run the replay again"
