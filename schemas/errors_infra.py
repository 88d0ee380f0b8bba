"""Failures of the pipeline as a whole: HR-51xx."""

from __future__ import annotations

from schemas.errors import Permanent


class SettingsOfOtherContent(Permanent):
    """The data directory was filled under settings that give other rows."""

    code = "HR-5101"
    what = "the data directory holds the stream {stream} in another version ({stored})"
    why = (
        "it was filled with another --source, other filters, other [[contracts]], or by another "
        "version of the decoder: the same blocks would now give other rows"
    )
    fix = "go back to those settings, or index into a new directory with --data"


class DrainTimedOut(Permanent):
    """A stop did not end in time."""

    code = "HR-5102"
    what = "what was under way did not end within {seconds} s"
    why = "a stage is stuck, or ClickHouse is very slow"
    fix = "nothing is lost: run the same command again, and it goes on where the ledger ends"


class ForkUnknown(Permanent):
    """The node's final chain is not the stored one."""

    code = "HR-5103"
    what = "block {number} is final in the data directory, and the node has another one there"
    why = "the node serves another fork or chain, or a reorg went below finality"
    fix = "check the endpoints; if the node is right, run `headrace rewind --to {to_block}`"


class ChainReplaced(Permanent):
    """The endpoints serve another chain with the same chain id."""

    code = "HR-5105"
    what = "nothing that is stored is on the endpoints' chain: their block {number} is another one"
    why = "the chain was reset (started from another genesis), or the endpoints serve another chain"
    fix = (
        "index the new chain into another data directory (`--data DIR`), or move this one away; "
        "if the endpoints are wrong, give others"
    )


class GridInvalid(Permanent):
    """Segments and partitions that do not fit."""

    code = "HR-5104"
    what = "the grid cannot be used: {reason}"
    why = "a partition holds whole segments"
    fix = "choose partition_blocks as a multiple of segment_blocks"


class DemoRunEnded(Permanent):
    """The run beside the demo's tour did not get on."""

    code = "HR-5106"
    what = "the demo waited for {what} in vain"
    why = "the run beside it ended or stands still; it said last: {said}"
    fix = "run `headrace doctor`, then `headrace demo` again"
