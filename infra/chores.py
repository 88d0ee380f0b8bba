"""Build the chores beside a publisher, the same for `headrace run` and for a cluster."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from infra.storage import Storage
from schemas.errors import Permanent
from sinks.compaction import Compactor, Folded
from sinks.publisher import Publisher
from sinks.put_aside import RETRY_SECONDS, PutAside, Task
from sinks.sealer import Sealed, Sealer
from sinks.sweeper import Sweeper
from sinks.upkeep import Upkeep

log = structlog.get_logger(__name__)


def build_upkeep(
    storage: Storage, publisher: Publisher, on_done: Callable[[Folded | Sealed], None]
) -> Upkeep:
    """Compaction, seals and sweeps of one chain, not yet started."""

    def visible_loads() -> frozenset[int]:
        row = publisher.visible()
        return frozenset(row.loads) if row is not None else frozenset()

    named = (storage.database, storage.tables, publisher)
    return Upkeep(
        Compactor(storage.connect(), *named),
        Sealer(storage.connect(), *named),
        Sweeper(storage.connect(), *named),
        PutAside(visible_loads, on_failure=log_put_aside),
        on_done=on_done,
        on_trouble=lambda error: log.info("chore_put_off", code=error.code),
    )


def log_put_aside(task: Task, error: Permanent) -> None:
    """Log a chore that failed for good, with what to do."""
    blocks = {}
    if task.from_block is not None:
        replay = f"headrace replay --from {task.from_block} --to {task.to_block}"
        blocks = {"from_block": task.from_block, "to_block": task.to_block, "replay": replay}
    log.error(
        "chore_put_aside",
        chore=task.chore,
        code=error.code,
        what=error.what_text,
        fix=error.fix_text,
        retry_seconds=RETRY_SECONDS,
        **blocks,
    )
