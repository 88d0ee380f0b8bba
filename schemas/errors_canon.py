"""Failures of the chain's view: reorgs that may not be applied (HR-30xx), the canon (HR-45xx)."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class ReorgBelowFinalized(Permanent):
    """The node's head is on a branch that leaves our chain below the finalized block."""

    code = "HR-3001"
    what = (
        "the node's head {head} is on another branch than what is stored: no block above "
        "{to_block} is the same on both"
    )
    why = (
        "the stored chain is final up to block {finalized}, and what is final is never rewritten "
        "silently"
    )
    fix = (
        "check that the node serves the right chain; if its branch is the true one, "
        "run `headrace rewind --to {to_block}` and then `headrace run` again"
    )


class HeadWindowFull(Permanent):
    """More blocks wait for finality than the limit allows."""

    code = "HR-3002"
    what = "{blocks} blocks above the finalized block {finalized} are not final"
    why = "finality has not advanced for more than {blocks_max} blocks, the limit of the window"
    fix = (
        "check that the node follows the chain's finality (its consensus client runs), "
        "or raise `window_blocks_max` in [limits]"
    )


class HeadOutOfReach(Permanent):
    """The node's head is further above ours than the head lane may bridge."""

    code = "HR-3003"
    what = "the node's head {head} is {blocks} blocks above the newest connected block {ours}"
    why = "the head lane bridges at most {blocks_max} blocks, one at a time"
    fix = "run `headrace run` again: it backfills the gap as history first"


class BelowFloor(Permanent):
    """A rewind names a block below the visible floor."""

    code = "HR-4501"
    what = "cannot rewind to block {to_block}: the visible range begins at {floor}"
    why = "a rewind keeps the blocks from the floor up to the one it names"
    fix = "name a block from {floor} to {head}, or move the data directory away and run again"


class AboveHead(Permanent):
    """A rewind names a block that is not visible yet."""

    code = "HR-4502"
    what = "cannot rewind to block {to_block}: the visible head is {head}"
    why = "a rewind takes blocks away; it cannot add any"
    fix = "name a block from {floor} to {head}"


class NothingVisible(Permanent):
    """A rewind of a database that shows no block yet."""

    code = "HR-4503"
    what = "cannot rewind {database}: it shows no block yet"
    why = "the canon is empty: no range of blocks was ever complete"
    fix = "run `headrace run` first"


class SealMismatch(Permanent):
    """A partition does not hold what its manifests say."""

    code = "HR-4504"
    what = (
        "partition {partition} of {table} holds {rows} rows (checksum {checksum}), "
        "its manifests say {manifest_rows} ({manifest_checksum})"
    )
    why = "rows of an accepted load were lost or changed in ClickHouse"
    fix = (
        "the partition stays open and visible as it is; run `headrace audit` for the blocks, check "
        "the disk, then take them again: `headrace rewind --to {to_block}` and `headrace run`"
    )


class FoldMismatch(Permanent):
    """A compacted load does not hold what its sources' manifests say."""

    code = "HR-4505"
    what = (
        "folding the loads of blocks {from_block} to {to_block} gave {rows} rows of {table} "
        "(checksum {checksum}), their manifests say {manifest_rows} ({manifest_checksum})"
    )
    why = "rows of an accepted load were lost or changed in ClickHouse"
    fix = "the fold was dropped; run `headrace audit --from {from_block} --to {to_block}`"


class CanonDamaged(Permanent):
    """The newest canon row does not agree with the ledger."""

    code = "HR-4506"
    what = "the canon of {database} shows blocks that the ledger does not hold: {detail}"
    why = "rows of the ledger or of the canon were lost or changed in ClickHouse"
    fix = "restore the data directory from a backup, or run `headrace rewind --to {to_block}`"


class StalePublisher(Permanent):
    """Another publisher claimed the chain after this one."""

    code = "HR-4507"
    what = "generation {claimed} claimed {database}; this publisher has generation {ours}"
    why = "one publisher per chain may write the canon; the newest claim wins"
    fix = "stop one of the two processes"


class CoreLoadMissing(Permanent):
    """A core segment stays incomplete although it was asked for again."""

    code = "HR-4508"
    what = "segment {segment} of {stream} has no load that counts after {attempts} requests"
    why = "the visible height cannot pass it: what is shown has no gaps"
    fix = "read the errors of the stage that writes {stream}, then run again"


class HeightNotReached(Transient):
    """A wait for a visible height ended before it was reached."""

    code = "HR-4509"
    what = "block {to_block} is not visible after {seconds} s; the visible head is {head}"
    why = "the stages before the publisher have not delivered it yet"
    fix = "wait longer, or see `headrace status` for the stage that lags"


class RewindUnfinished(Permanent):
    """A rewind was cut short, and its chain was claimed before it was finished."""

    code = "HR-4510"
    what = "the rewind of {database} to block {to_block} was cut short"
    why = "its intent is recorded, its canon row is not"
    fix = "run `headrace rewind --to {to_block}` again: it goes on where it stopped"


class ShownInDoubt(Transient):
    """The rows that say which of the shown blocks left the chain are not stored."""

    code = "HR-4511"
    what = (
        "for {seconds:.0f} s it has not been known which of the visible blocks from {from_block} "
        "on left the chain: rows of `blocks` up to {to_block} are not stored"
    )
    why = (
        "nobody followed the chain while it left them, so that stored rows have to say it, and "
        "ClickHouse has lost some; nothing new is shown before it is known"
    )
    fix = (
        "run `headrace replay --from {from_block} --to {to_block}`: it loads them once more, and "
        "the publisher goes on; run it again when they are final, to mend what was lost"
    )
