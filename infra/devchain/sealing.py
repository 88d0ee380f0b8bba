"""A spec and a parent in, the next block and what it does to the state out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from infra.devchain.blocks import Rules, seal_block
from infra.devchain.cast import cast_of
from infra.devchain.model import Block, Withdrawal
from infra.devchain.planning import Budget, Planned, dice_of, plan_block

_WITHDRAWALS_DONE = b"withdrawals done"
_WITHDRAWALS_MAX = 4
_VALIDATORS = 900_000


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything a synthetic chain follows from, besides the commands it is given."""

    seed: int = 7
    chain_id: int = 1337
    budget: Budget = field(default_factory=lambda: Budget(30, 100))
    finality_depth: int = 64
    """How far ``finalized`` is behind the head."""
    safe_depth: int = 32
    """How far ``safe`` is behind the head."""
    start_time: int = 1_700_000_000
    """Timestamp of block 0, in Unix seconds."""
    block_time_seconds: float = 12.0
    """Between two timestamps."""
    clock: Callable[[], float] | None = None
    """Stamps the blocks after genesis instead, for a chain that is mined in real time."""


@dataclass(frozen=True, slots=True)
class Node:
    """A sealed block and what it does to the state."""

    block: Block
    before: Mapping[bytes, int | None]
    """The values it replaced, None where there was none."""
    after: Mapping[bytes, int]
    """The values it wrote."""


class Sealer:
    """Makes blocks one after the other, and holds the state after the last."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state: dict[bytes, int] = {}
        self._rules = Rules.of(spec.chain_id, spec.budget)

    def genesis(self) -> Node:
        """Block 0: no transactions, an empty state."""
        block = seal_block(
            self._rules,
            None,
            Planned([], [], {}),
            self.state,
            randomness=dice_of(self.spec.seed, 0, 0, "header").randbytes(32),
            timestamp=self.spec.start_time,
            withdrawals=(),
        )
        return Node(block, {}, {})

    def seal(self, parent: Block, branch: int = 0) -> Node:
        """The next block of a branch; `state` must be the parent's, and becomes the block's."""
        spec, state = self.spec, self.state
        number = parent.header.number + 1
        dice = dice_of(spec.seed, branch, number, "header")
        planned = plan_block(spec.seed, branch, number, spec.budget, state)
        block = seal_block(
            self._rules,
            parent,
            planned,
            state,
            randomness=dice.randbytes(32),
            timestamp=self._time(number, parent),
            withdrawals=self._withdrawals(planned, dice),
        )
        before = {key: state.get(key) for key in planned.writes}
        state.update(planned.writes)
        return Node(block, before, planned.writes)

    def _withdrawals(self, planned: Planned, dice: Random) -> tuple[Withdrawal, ...]:
        first = self.state.get(_WITHDRAWALS_DONE, 0)
        count = dice.getrandbits(8) % (_WITHDRAWALS_MAX + 1)
        planned.writes[_WITHDRAWALS_DONE] = first + count
        actors = cast_of(self.spec.seed).actors
        return tuple(
            Withdrawal(
                number,
                number % _VALIDATORS,
                actors[number % len(actors)].address,
                17_000_000 + dice.getrandbits(20),
            )
            for number in range(first, first + count)
        )

    def _time(self, number: int, parent: Block) -> int:
        if self.spec.clock is not None:
            return max(parent.header.timestamp, int(self.spec.clock()))
        return self.spec.start_time + int(number * self.spec.block_time_seconds)


def stream_blocks(spec: Spec, blocks: int) -> Iterator[Block]:
    """Genesis and some blocks of the first branch, none of which is kept."""
    sealer = Sealer(spec)
    block = sealer.genesis().block
    yield block
    for _ in range(blocks):
        block = sealer.seal(block).block
        yield block
