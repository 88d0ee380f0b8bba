"""Failures of the process role: HR-62xx."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class OneLaneEach(Permanent):
    """A worker was asked for both lanes, or for none that fits its agents."""

    code = "HR-6201"
    what = "`headrace process` was asked for lanes {lanes} and agents {agents}"
    why = "a worker serves one lane, so that the head never waits behind a backfill: {reason}"
    fix = "start one worker with `--lanes history` and one with `--lanes head`"


class OffsetsLost(Permanent):
    """Messages that were not processed are no longer in the topic."""

    code = "HR-6202"
    what = "{topic}, partition {partition}: offsets {first} to {last} are gone unprocessed"
    why = "retention dropped them before this worker read them: it stood still for too long"
    fix = (
        "ingest those blocks again (`headrace replay --from N --to M`; `headrace status` shows "
        "what is missing), then start the worker once with `--accept-lost`"
    )


class ForkStateLost(Permanent):
    """The table of fork states is empty although heads were processed before."""

    code = "HR-6203"
    what = (
        "the topic {changelog} holds no fork state, though {heads} was read up to offset {offset}"
    )
    why = "the changelog was deleted, emptied or made anew; what it held is not guessed"
    fix = (
        "run the worker of the head lane once with `--rebuild-forks`: it reads the heads again "
        "from the oldest one kept"
    )


class ForkStateUnreadable(Permanent):
    """A stored fork state that this version cannot read."""

    code = "HR-6204"
    what = "a stored fork state of {size_bytes} bytes could not be read: {reason}"
    why = "a newer Headrace wrote it, or it is damaged"
    fix = (
        "upgrade this worker, or run it once with `--rebuild-forks`: it reads the heads again "
        "from the oldest one kept"
    )


class ForkHalted(Permanent):
    """The reorg agent may not go on without its operator."""

    code = "HR-6205"
    what = "the reorg agent of chain {chain_id} halted with {halt_code}: {halt}"
    why = "{halt_why}"
    fix = (
        "{halt_fix}; in a cluster, then start the worker of the head lane once with "
        "`--rebuild-forks`"
    )


class WorkerFailed(Transient):
    """The Faust worker ended for a reason of Kafka's or its own."""

    code = "HR-6206"
    what = "the worker ended: {detail}"
    why = "the broker refused or broke off what it did, or the group moved on without it"
    fix = (
        "start it again: it goes on where its offsets stand; if it ends again, see the broker's log"
    )


class MessagesSkipped(Transient):
    """Faust passed messages over that lie in the topic."""

    code = "HR-6208"
    what = "{topic}, partition {partition}: offset {offset} came where {expected} was next"
    why = "the client library threw away what it had read ahead, as it may when a group rebalances"
    fix = "none is needed: nothing behind the gap was acknowledged, and the next worker reads it"


class HeadsLost(Permanent):
    """Heads that a stored fork state does not know are no longer in the topic."""

    code = "HR-6209"
    what = "the heads at offsets {first} to {last} are gone, and a stored fork state lacks them"
    why = "retention dropped them before they were part of it: the worker stood still for too long"
    fix = (
        "run the worker of the head lane once with `--rebuild-forks`: it begins anew with the "
        "oldest finalized block among the heads that are kept"
    )


class FaustUntested(Permanent):
    """The installed Faust, or its client, is not the version that we rely on and mend."""

    code = "HR-6207"
    what = "{package} {found} is installed, {expected} is needed"
    why = "what it does with offsets and rebalances is mended, and proven for that version only"
    fix = "install the locked dependencies (`make setup`, or the image of this version)"
