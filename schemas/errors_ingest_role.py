"""Failures of the ingest role: HR-61xx."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class FinalizedReplaced(Permanent):
    """The endpoints' chain lacks a block that was told as final."""

    code = "HR-6101"
    what = "block {number} is final in this cluster, and the endpoints have another one there"
    why = "the chain was reset, they serve another one, or a reorg went below finality"
    fix = (
        "check the endpoints; if they are right, index their chain with a `topic_prefix` and a "
        "ClickHouse of its own: what is final here is not rewritten"
    )


class HeadBridgeTooLong(Permanent):
    """The head lane was away for more blocks than it may make up for."""

    code = "HR-6102"
    what = (
        "the head lane was away for {blocks} blocks, from {number} to {boundary}: more than the "
        "{blocks_max} whose headers it fetches to connect"
    )
    why = "the reorg agent follows parents from the last final block that it was told"
    fix = "raise the limit head_bridge_blocks_max in [limits] and start `headrace ingest` again"


class HeadBridgeBroken(Transient):
    """Headers of final blocks that do not link."""

    code = "HR-6103"
    what = "the headers of final blocks from {number} on do not link, asked {attempts} times"
    why = "an endpoint lags, or endpoints disagree about what is final"
    fix = "check the endpoints with `headrace doctor`, then start the ingester again: it goes on"
