"""A number of workers in, the roles of a cluster and their command lines out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infra.kafka.broker import BrokerSize
from infra.local.child import RoleCommand

DRAIN_ORDER = ("ingest", "process", "sink", "publish")
"""Roles end in the order of the data's way, so that each can finish what came before."""


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What a cluster is made of."""

    workers: int = 1
    """Processes of each lane of `process`, and of `sink`."""
    broker: BrokerSize = field(default_factory=BrokerSize)
    """What the broker may take."""
    steps: tuple[str, ...] = ("migrate",)
    """Commands that are run to their end before the roles start."""
    roles: Callable[[int], Sequence[RoleCommand]] | None = None
    """The roles for a number of workers; None for all that there are."""


def cluster_roles(workers: int) -> list[RoleCommand]:
    """Every role: one ingester and publisher, and as many of the others as asked."""
    return [
        RoleCommand("ingest", ("ingest",), ends=True),
        *(worker("process-history", number) for number in range(workers)),
        *(worker("process-head", number) for number in range(workers)),
        *(worker("sink", number) for number in range(workers)),
        RoleCommand("publish", ("publish",)),
    ]


def worker(kind: str, number: int) -> RoleCommand:
    """One of several workers: ``process-history``, ``process-head`` or ``sink``."""
    command, _, lane = kind.partition("-")
    return RoleCommand(f"{kind}-{number}", (command, *(("--lanes", lane) if lane else ())))
