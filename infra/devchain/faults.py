"""Faults to inject in, decisions on each request out.

A fault is active until it is cleared, or has struck as often as it may. Chance comes from seeded
dice, so a sequence of requests meets the same faults again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from threading import Lock

TRANSPORT_KINDS = frozenset(
    {"http_status", "hang", "delay", "disconnect", "truncated", "html", "giant", "empty_body"}
)
"""Faults of the whole HTTP answer or WebSocket message."""
STANDING_KINDS = ("frozen", "back", "reset")
"""Faults after which the endpoint's chain stands still: as it is, some blocks lower, or another
chain from another genesis with the same chain id."""
VIEW_KINDS = frozenset({"lagging_head", "other_chain", *STANDING_KINDS})
"""Faults of what the endpoint believes the chain to be: for every method, until cleared."""
ANSWER_KINDS = frozenset(
    {
        "rpc_error",
        "no_finality_tags",
        "pruned",
        "null_block",
        "null_receipts",
        "empty_logs",
        "other_receipts",
    }
)
"""Faults that replace one call's result."""
LIE_KINDS = frozenset(
    {
        "omit_logs",
        "cut_logs",
        "alter_logs",
        "duplicate_logs",
        "alter_header",
        "alter_hash",
        "alter_transaction",
        "alter_receipt",
    }
)
"""Faults that change a result so that its hash or root no longer fits."""
KINDS = TRANSPORT_KINDS | VIEW_KINDS | ANSWER_KINDS | LIE_KINDS


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for an endpoint to misbehave."""

    kind: str
    methods: frozenset[str] = frozenset()
    """JSON-RPC methods it strikes; all if empty. Pushed heads count as ``eth_subscription``."""
    probability: float = 1.0
    count: int | None = None
    """How often it strikes at most; None until cleared."""
    status: int = 429
    """``http_status``: the status."""
    retry_after_seconds: float | None = None
    """``http_status``: the Retry-After header."""
    delay_seconds: float = 3600.0
    """``delay`` and ``hang``: how long; a hang then drops the connection."""
    blocks: int = 10
    """``lagging_head``: how far behind; ``back``: how far it goes back, to stay there; ``reset``:
    the height of the new chain; ``other_receipts``: which earlier block's; ``pruned``: how many of
    the last blocks are kept."""
    chain_id: int = 999_999
    """``other_chain``: the chain it claims to serve."""
    size_bytes: int = 300_000_000
    """``giant``: size of the body."""
    code: int = -32000
    """``rpc_error``: the code."""
    message: str = "internal error"
    """``rpc_error``: the message."""
    field: str = "stateRoot"
    """``alter_header``: which field."""
    logs_max: int = 20
    """``cut_logs``: logs of a list that are left, from its beginning."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {', '.join(sorted(KINDS))}")

    def concerns(self, method: str) -> bool:
        """Whether it may strike a call of that method."""
        return not self.methods or method in self.methods


@dataclass(slots=True)
class _Active:
    fault: Fault
    left: int | None
    struck: int = 0


@dataclass(eq=False, slots=True)
class FaultBoard:
    """The faults of one endpoint; any thread may set and clear them."""

    seed: int = 0
    _lock: Lock = field(default_factory=Lock)
    _active: dict[int, _Active] = field(default_factory=dict)
    _ended: dict[int, int] = field(default_factory=dict)
    _numbers: int = 0
    _dice: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self._dice = Random(self.seed)

    def add(self, fault: Fault) -> int:
        """Activate a fault and return its number."""
        with self._lock:
            self._numbers += 1
            self._active[self._numbers] = _Active(fault, fault.count)
            return self._numbers

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all of them."""
        with self._lock:
            for ended in [number] if number is not None else list(self._active):
                active = self._active.pop(ended, None)
                if active is not None:
                    self._ended[ended] = active.struck

    def struck(self, number: int) -> int:
        """How often a fault has struck."""
        with self._lock:
            active = self._active.get(number)
            return active.struck if active else self._ended.get(number, 0)

    def any_active(self) -> bool:
        """Whether there is any fault at all: endpoints without any answer faster."""
        return bool(self._active)

    def standing(self, kind: str) -> tuple[int, Fault] | None:
        """The first active fault of a kind, without throwing dice."""
        with self._lock:
            for number, active in self._active.items():
                if active.fault.kind == kind:
                    return number, active.fault
        return None

    def draw(self, kinds: frozenset[str], methods: tuple[str, ...]) -> tuple[int, Fault] | None:
        """The fault that strikes a call of one of some methods, if any; counted as a strike."""
        if not self._active:
            return None
        with self._lock:
            for number, active in self._active.items():
                fault = active.fault
                if fault.kind not in kinds or active.left == 0:
                    continue
                if not any(fault.concerns(method) for method in methods):
                    continue
                if fault.probability < 1 and self._dice.random() >= fault.probability:
                    continue
                active.struck += 1
                if active.left is not None:
                    active.left -= 1
                return number, fault
        return None

    def give_back(self, number: int) -> None:
        """Take a strike back: there was nothing to strike."""
        with self._lock:
            active = self._active.get(number)
            if active is not None:
                active.struck -= 1
                if active.left is not None:
                    active.left += 1

    def pick(self, count: int) -> int:
        """A number below ``count``, from the same dice."""
        with self._lock:
            return self._dice.randrange(count)
