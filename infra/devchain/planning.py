"""A seed, a state and a budget in, the planned transactions of one block out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from infra.devchain.bootstrap import found, launch_next, steps
from infra.devchain.cast import cast_of
from infra.devchain.economy import (
    HEAVY,
    HEAVY_MEAN,
    LIGHT,
    LIGHT_MEAN,
    LOGS_HEAVY_MAX,
    LOGS_LIGHT_MAX,
    disperse,
    fail,
    pay,
    send_token,
    shout,
)
from infra.devchain.model import Plan
from infra.devchain.world import STEPS_DONE, TOKENS_LAUNCHED, World
from ingest.keccak import keccak

_FAILED_SHARE, _LAUNCH_SHARE, _EMPTY_SHARE = 0.03, 0.0015, 0.02
_OWN_MAX = 3
ENTROPY_BITS = 544
_LOGS_PER_OWN = 2
_BIG_LOG_EVERY = 10


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a block holds."""

    transactions: int
    logs: int
    exact: bool = False
    """Every block holds exactly this, save the very first ones, which found the economy. Otherwise
    these are means, and some blocks are empty."""
    big_log_bytes: int = 0
    """If not 0, every tenth block has one undeclared log of that size, as a few on real chains."""


class Planned(NamedTuple):
    """The content of a block, before it has a header."""

    plans: list[Plan]
    entropies: list[int]
    """Random bits of each transaction: its type, fees and signature follow from them."""
    writes: dict[bytes, int]
    """What it changes in the state."""


@lru_cache(maxsize=8)
def _steps(seed: int) -> tuple[tuple[str, int], ...]:
    return steps(cast_of(seed))


def dice_of(seed: int, branch: int, number: int, purpose: str) -> Random:
    """Dice that fall the same for the same arguments, on every machine."""
    text = f"headrace devchain {seed} {branch} {number} {purpose}"
    return Random(int.from_bytes(keccak(text.encode()), "big"))


class _Draft:
    """Some transactions of a block while they are planned."""

    def __init__(self, world: World, seed: int, transactions: int, logs: int) -> None:
        self.world = world
        self.seed = seed
        self.plans: list[Plan] = []
        self.entropies: list[int] = []
        self.transactions, self.logs = transactions, logs

    def _take(self, planned: Plan) -> None:
        self.plans.append(planned)
        self.entropies.append(self.world.bits(ENTROPY_BITS))
        self.transactions -= 1
        self.logs -= len(planned.logs)

    def found(self) -> None:
        """Found what is not there yet, as far as half the budget goes, but at least one step."""
        order, world = _steps(self.seed), self.world
        kept = self.logs // 2
        while self.transactions > 0 and (done := world.get(STEPS_DONE)) < len(order):
            if self.plans and self.logs - LOGS_HEAVY_MAX < kept:
                break
            self._take(found(world, *order[done]))

    def put_big(self, size: int) -> None:
        """Emit a log of that size."""
        self._take(shout(self.world, size))

    def fill(self) -> None:
        """Spend what is left of the budget."""
        while self.transactions > 0:
            self._take(self._draw())

    def _draw(self) -> Plan:
        world, logs = self.world, self.logs
        if logs <= 0 or not world.get(TOKENS_LAUNCHED):
            return pay(world)
        if self.transactions == 1:
            return disperse(world, logs)
        if world.get(STEPS_DONE) < len(_steps(self.seed)):
            return pay(world)
        mean = logs / self.transactions
        if mean > LOGS_HEAVY_MAX:
            return disperse(world, int(mean * 1.5))
        chance = world.random()
        if chance < _FAILED_SHARE:
            return fail(world)
        roomy = logs >= LOGS_HEAVY_MAX
        if roomy and chance > 1 - _LAUNCH_SHARE and (launch := launch_next(world)):
            return launch
        if roomy and world.random() < (mean - LIGHT_MEAN) / (HEAVY_MEAN - LIGHT_MEAN):
            return HEAVY[world.below(len(HEAVY))](world)
        if logs < LOGS_LIGHT_MAX:
            return send_token(world)
        return LIGHT[world.below(len(LIGHT))](world)


def _sizes(budget: Budget, dice: Random) -> tuple[int, int]:
    """Transactions and logs of one block."""
    if budget.exact:
        return budget.transactions, budget.logs
    if dice.random() < _EMPTY_SHARE:
        return 0, 0
    transactions = max(1, int(budget.transactions * (0.5 + dice.random())))
    return transactions, int(budget.logs * (0.5 + dice.random()))


def plan_block(
    seed: int, branch: int, number: int, budget: Budget, state: Mapping[bytes, int]
) -> Planned:
    """Plan the transactions of one block.

    A few of them are the branch's own. The others are the same on every branch of a seed as far
    as the state allows, so that a reorg puts many of the same transactions into another block.

    Parameters
    ----------
    seed : int
    branch : int
        Which fork the block is on; 0 is the first chain.
    number : int
        The block's height.
    budget : Budget
    state : mapping
        State after the parent; it is not changed.

    Returns
    -------
    Planned
        Always the same for the same arguments.
    """
    shared_dice, own_dice = (
        dice_of(seed, 0, number, "shared"),
        dice_of(seed, branch, number, "own"),
    )
    transactions, logs = _sizes(budget, shared_dice)
    own = min(1 + shared_dice.getrandbits(8) % _OWN_MAX, transactions // 2)
    own_logs = min(own * _LOGS_PER_OWN, logs // 2)
    world = World(cast_of(seed), state, own_dice)
    if world.get(STEPS_DONE) < len(_steps(seed)):
        own = own_logs = 0
    # Some of the branch's own go first, so that the others stand at other places in each branch.
    before = own_dice.randrange(own + 1)
    logs_before = own_logs * before // max(1, own)
    shares = (
        (own_dice, before, logs_before),
        (shared_dice, transactions - own, logs - own_logs),
        (own_dice, own - before, own_logs - logs_before),
    )
    drafts = []
    big = budget.big_log_bytes if number % _BIG_LOG_EVERY == 0 else 0
    for dice, count, count_logs in shares:
        world.use(dice)
        draft = _Draft(world, seed, count, count_logs)
        if big and count_logs > 0:
            draft.put_big(big)
            big = 0
        draft.found()
        draft.fill()
        drafts.append(draft)
    return Planned(
        [plan for draft in drafts for plan in draft.plans],
        [entropy for draft in drafts for entropy in draft.entropies],
        world.writes,
    )
