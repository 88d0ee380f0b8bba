"""Dice and a running cluster in, the cluster broken in one way out: the kinds of chaos.

Each function breaks something while blocks come in, and returns when all is started again. What
must hold afterwards is always the same, and stands in `test_chaos.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from random import Random

from infra.exit_codes import ExitCode
from infra.kafka.broker import LocalBroker
from tests.cluster.cluster_rig import Cluster
from tests.cluster.messages import duplicate_raw, poison_every_topic
from tests.e2e.running import until

ROLES = ("ingest", "process-history", "process-head", "sink", "publish")

Chaos = Callable[[Cluster, LocalBroker, Random], None]


def kill_one(role: str) -> Chaos:
    """kill -9 of one role, three times."""

    def chaos(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
        for _ in range(3):
            time.sleep(dice.uniform(0.5, 4.0))
            cluster.kill(role)

    return chaos


def kill_pairs(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """kill -9 of two roles at once, four times."""
    for _ in range(4):
        time.sleep(dice.uniform(0.5, 4.0))
        for role in dice.sample(ROLES, 2):
            cluster.kill(role)


def restart_broker(cluster: Cluster, broker: LocalBroker, dice: Random) -> None:
    """The broker stops, then dies, and comes back each time."""
    for end in (broker.stop, broker.kill):
        time.sleep(dice.uniform(1.0, 4.0))
        end()
        time.sleep(dice.uniform(0.5, 4.0))
        broker.start()


def trouble_clickhouse(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """ClickHouse stands still for a while, then dies; its supervisor starts it again."""
    time.sleep(dice.uniform(1.0, 4.0))
    stood = _signal_clickhouse(cluster, signal.SIGSTOP)
    time.sleep(dice.uniform(1.0, 6.0))
    # The same process: one that was started meanwhile does not stand still.
    with contextlib.suppress(ProcessLookupError):
        os.kill(stood, signal.SIGCONT)
    for _ in range(2):
        time.sleep(dice.uniform(0.5, 3.0))
        killed = _signal_clickhouse(cluster, signal.SIGKILL)
        until(lambda gone=killed: cluster.server.pid != gone, "ClickHouse is not started again")


def _signal_clickhouse(cluster: Cluster, number: signal.Signals) -> int:
    """Send the server a signal, however often it ends by itself meanwhile; its process."""
    sent: list[int] = []

    def send() -> bool:
        pid = cluster.server.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent.append(pid)
        return bool(sent)

    until(send, "there is no ClickHouse")
    return sent[0]


def rebalance(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """Workers come and go under load."""
    added: list[str] = []
    for turn in range(3):
        time.sleep(dice.uniform(0.5, 2.0))
        name = f"sink-{turn + 2}"
        cluster.start(name, "sink")
        added.append(name)
        name = f"process-history-{turn + 2}"
        cluster.start(name, "process", "--lanes", "history")
        added.append(name)
        for name in added:
            cluster.await_started(name)
        time.sleep(dice.uniform(0.0, 3.0))
        gone = added.pop(dice.randrange(len(added)))
        code = cluster.remove(gone)
        assert code == ExitCode.ok, f"{gone} ended with {code}\n{cluster.said()}"


def two_publishers(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """A second publisher takes over, and the first one dies in between."""
    cluster.start("publish-2", "publish")
    for _ in range(3):
        time.sleep(dice.uniform(1.0, 4.0))
        cluster.kill(dice.choice(("publish", "publish-2")))


def two_ingesters(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """A second ingester repeats everything; messages come again out of order."""
    cluster.start("ingest-2", "ingest")
    time.sleep(dice.uniform(2.0, 5.0))
    duplicate_raw(cluster.settings.kafka, dice)
    time.sleep(dice.uniform(1.0, 3.0))
    cluster.kill(dice.choice(("ingest", "ingest-2")))


def poison(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """Foreign, damaged and misplaced messages in every topic that a role reads."""
    for _ in range(2):
        time.sleep(dice.uniform(1.0, 3.0))
        poison_every_topic(cluster.settings.kafka, dice)


def pause_beyond_poll(cluster: Cluster, _broker: LocalBroker, dice: Random) -> None:
    """A sink and a worker stand still for longer than the group waits."""
    names = ("sink", dice.choice(("process-history", "process-head")))
    cluster.start("sink-2", "sink")
    for name in ("sink-2", *names):
        cluster.await_started(name)
    time.sleep(dice.uniform(0.0, 2.0))
    for name in names:
        cluster.pause(name)
    time.sleep(13.0)
    for name in names:
        cluster.resume(name)


CHAOS: Mapping[str, Chaos] = {
    **{f"kill {role}": kill_one(role) for role in ROLES},
    "kill pairs": kill_pairs,
    "restart broker": restart_broker,
    "trouble ClickHouse": trouble_clickhouse,
    "rebalance": rebalance,
    "two publishers": two_publishers,
    "two ingesters": two_ingesters,
    "poison": poison,
    "pause beyond poll": pause_beyond_poll,
}
"""Every kind, by its name."""
