"""A seed in, a World out in which the publisher is away, hears late words, and starts amid doubts.

More happens than in a `World`: the publisher starts again while the reorg agent goes on, and takes
up what the topic ``forks`` tells as one state; the agent is away twice in a row; whole snapshots
come between other updates; history comes in bursts; loads are folded as the compaction plans it,
and lost ones asked for again as an ingester answers. At the end a healthy pipeline delivers
everything as history, as head blocks, or as both.
"""

from __future__ import annotations

from infra.roles.fork_tail import whole_of
from processors.reorg import snapshot
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved
from sinks.canon_row import Missing
from sinks.fold_plan import FoldSettings, plan_folds, runs
from sinks.tiling import last_block
from tests.sinks.canon_ledger import STREAMS, ledger
from tests.sinks.canon_world import World

FLOORS = (3, 0, 7)
DELIVERIES = ("history", "both", "heads")
BURST_SEGMENTS = 3


class Storm(World):
    """A world of bad weather, its floor and its good end chosen by the seed.

    Parameters
    ----------
    seed
        Of the dice.
    mixed
        Whether blocks were proven in two ways, as by two ingesters, so that folds hold parts of
        segments.
    """

    PATIENCE = 60

    def __init__(self, seed: int, *, mixed: bool = False) -> None:
        self.mixed = mixed
        super().__init__(seed, floor=FLOORS[seed % len(FLOORS)])
        self.delivery = DELIVERIES[seed // len(FLOORS) % len(DELIVERIES)]
        self.told: list[ForkUpdate] = list(self.pending)
        """What the topic ``forks`` holds."""
        self.publishers, self.bursts, self.parts = 1, 0, 0

    def follow(self, observed: HeadObserved | FinalityAdvanced) -> None:
        """The agent follows its node, and tells."""
        waiting = len(self.pending)
        super().follow(observed)
        self.told += self.pending[waiting:]

    def turn(self) -> None:
        """One thing happens, by the dice."""
        choice = self.rng.random()
        if choice < 0.02:
            self.burst()
        elif choice < 0.03:
            self.publisher_dies()
        elif choice < 0.035:
            self.forget()
        elif choice < 0.05:
            self.tell_all()
        elif choice < 0.055:
            self.go_away_twice()
        else:
            super().turn()

    # What happens

    def burst(self) -> None:
        """Blocks become final in numbers, and history of them comes in, with gaps."""
        for _ in range(4):
            self.grow()
        self.finalize()
        end = self.final_end()
        for first in range(
            max(self.first_segment(), end - BURST_SEGMENTS * self.facts.segment_blocks),
            end,
            self.facts.segment_blocks,
        ):
            for stream in STREAMS:
                if self.rng.random() < 0.9:
                    self.load_history(stream, first)
        self.bursts += 1

    def publisher_dies(self) -> None:
        """It starts again, and takes up what the agent told before it hears more."""
        self.restart_publisher()
        self.pending = []
        for update in whole_of(self.told):
            assert self.canon.apply_fork(update, self.clock)
        self.absences += 1
        self.publishers += 1

    def restart(self) -> None:
        """The topic holds what the agent that started again tells."""
        super().restart()
        self.told = list(self.pending)

    def tell_all(self) -> None:
        """The agent tells a whole snapshot, as it does from time to time."""
        self.pending.append(snapshot(self.fork, 0))
        self.told.append(self.pending[-1])

    def forget(self) -> None:
        """What the agent told before a whole snapshot stays unheard."""
        self.pending = []
        self.told = []
        self.tell_all()
        self.absences += 1

    def go_away(self) -> None:
        """What the agent tells when it is back is all that the topic holds."""
        super().go_away()
        self.told = list(self.pending)

    def go_away_twice(self) -> None:
        """The agent is away again once the publisher knows where it was."""
        self.go_away()
        self.look()
        assert self.canon.apply_fork(self.pending.pop(0), self.clock)
        self.publish()
        self.go_away()

    def fold(self) -> None:
        """Do the first of the folds that the compaction plans."""
        loads_max = self.rng.choice((3, 600))
        settings = FoldSettings(1, fold_segments_max=3, loads_max=loads_max, fold_loads_max=4)
        for fold in plan_folds(self.canon, settings)[:1]:
            stream = next(stream for stream in STREAMS if stream == fold.stream)
            tiles = self.canon.tilings[stream].tiles(fold.partition)
            sources = [tile for tile in tiles if tile.load_id in fold.sources]
            rows = [
                ledger(
                    stream,
                    tile.load_id,
                    tile.from_block,
                    last_block(tile),
                    content_version=self.rng.choice("vw") if self.mixed else "v",
                )
                for tile in sources
            ]
            parts = [(run[0], run[-1]) for run in runs(fold, rows)]
            self.parts += len(parts) - len(fold.segments)
            self.copy(
                stream,
                sources,
                [(first.from_block, last.to_block, last.last_hash) for first, last in parts],
            )

    def publish(self) -> None:
        """Show what counts; half of the requests are heard."""
        self.clock += self.rng.randrange(0, 400)
        self.step()
        for lost in self.canon.take_missing(self.clock):
            if self.rng.random() < 0.5:
                self.serve(lost)

    def serve(self, lost: Missing) -> None:
        """What an ingester does with a request: it asks its node."""
        stream = next(stream for stream in STREAMS if stream == lost.stream)
        canonical = dict(self.path(self.fork.head, 0))
        one = lost.from_block == lost.to_block
        if lost.last_hash is not None:
            if lost.last_hash in (self.blocks if one else canonical.values()):
                last = BlockRef(lost.to_block, lost.last_hash)
                self.add_surely(stream, lost.from_block, last, "head" if one else "history")
        elif lost.to_block <= self.fork.finalized.number:
            last = BlockRef(lost.to_block, canonical[lost.to_block])
            self.add_surely(stream, lost.from_block, last, "history")
        else:
            for number in range(lost.from_block, lost.to_block + 1):
                if number in canonical:
                    last = BlockRef(number, canonical[number])
                    self.add_surely(stream, number, last, "head")

    # The good end

    def load_everything(self) -> None:
        """All of the node's chain, in the lanes that this world's end has."""
        heads_only = self.delivery == "heads"
        end = self.anchor.number + 1 if heads_only else self.final_end()
        for stream in STREAMS:
            for first in range(self.first_segment(), end, self.facts.segment_blocks):
                self.load_history(stream, first)
            lowest = end if self.delivery == "history" else 0
            self.load_heads(stream, max(lowest, self.floor))

    def first_segment(self) -> int:
        """First block of the segment that holds the floor."""
        return self.facts.segment_start(self.floor)

    def final_end(self) -> int:
        """First block after the last segment that is final as a whole."""
        return self.facts.segment_start(self.fork.finalized.number + 1)
