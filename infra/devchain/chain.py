"""A seed and commands in (mine, reorg, switch), a chain of sealed blocks with all its forks out.

The same commands on the same spec give the same chain, byte for byte. Commands may come from any
thread; readers take a `View`, which never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock
from types import MappingProxyType

from infra.devchain.cast import Cast, cast_of
from infra.devchain.logfilter import LogFilter
from infra.devchain.model import Block
from infra.devchain.render import Rendered, render_block
from infra.devchain.sealing import Node, Sealer, Spec


@dataclass(frozen=True, slots=True)
class View:
    """The chain at one moment, as one endpoint sees it."""

    chain: Chain
    nodes: tuple[Node, ...]
    """The canonical chain, by number."""
    safe: int
    finalized: int

    @property
    def head(self) -> int:
        """Number of the last canonical block."""
        return len(self.nodes) - 1

    def behind(self, blocks: int) -> View:
        """The same chain some blocks ago."""
        nodes = self.nodes[: max(1, len(self.nodes) - blocks)]
        return self.chain.view_of(nodes)

    def another(self, blocks: int) -> View:
        """A chain of another genesis with the same chain id, so many blocks long."""
        other = Chain(replace(self.chain.spec, seed=self.chain.spec.seed + 1))
        other.mine(blocks)
        return other.view

    def value(self, key: bytes, number: int) -> int:
        """A value of the state after a block."""
        return self.chain.value_at(key, number)

    def hash_at(self, number: int) -> bytes | None:
        """Hash of a canonical block."""
        return self.nodes[number].block.hash if 0 <= number < len(self.nodes) else None

    def at(self, number: int) -> Rendered | None:
        """A canonical block."""
        if 0 <= number < len(self.nodes):
            return self.chain.rendered(self.nodes[number].block.hash)
        return None

    def known(self, block_hash: bytes) -> Rendered | None:
        """A block by its hash, orphaned ones too, but none above this view's head."""
        node = self.chain.node(block_hash)
        if node is None or node.block.header.number > self.head:
            return None
        return self.chain.rendered(block_hash)

    def transaction(self, transaction_hash: bytes) -> tuple[Rendered, int] | None:
        """The canonical block that holds a transaction, and its index there."""
        for place in self.chain.places(transaction_hash):
            number, index = place[0], place[1]
            if number <= self.head and self.nodes[number].block.hash == place[2]:
                return self.chain.rendered(place[2]), index
        return None

    def logs(self, first: int, last: int, wanted: LogFilter) -> Iterator[bytes]:
        """JSON of the canonical logs of a range that a filter wants."""
        for node in self.nodes[first : last + 1]:
            yield from self._logs_of(node, wanted)

    def logs_of(self, block_hash: bytes, wanted: LogFilter) -> Iterator[bytes]:
        """JSON of one block's logs that a filter wants."""
        node = self.chain.node(block_hash)
        if node is not None:
            yield from self._logs_of(node, wanted)

    def _logs_of(self, node: Node, wanted: LogFilter) -> Iterator[bytes]:
        rendered = None
        index = 0
        for transaction in node.block.transactions:
            for log in transaction.logs:
                if wanted.matches(log.address, log.topics):
                    rendered = rendered or self.chain.rendered(node.block.hash)
                    yield rendered.log(index)
                index += 1


@dataclass(frozen=True, slots=True)
class Change:
    """What a command did to the canonical chain."""

    removed: tuple[Block, ...]
    """Orphaned blocks, lowest first."""
    added: tuple[Block, ...]
    """New canonical blocks, lowest first."""


@dataclass(eq=False)
class Chain:
    """A synthetic chain and its forks, held in memory."""

    spec: Spec = field(default_factory=Spec)
    blocks_max: int = 50_000
    """How many blocks may be sealed, forks included; one of 100 logs takes about 100 kB."""
    rendered_max: int = 512
    """How many blocks' JSON is kept; the others are rendered again when asked for."""

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._sealer = Sealer(self.spec)
        self._state = self._sealer.state
        self._nodes: dict[bytes, Node] = {}
        self._places: dict[bytes, tuple[tuple[int, int, bytes], ...]] = {}
        self._branch = self._branches = 0
        self._listeners: list[Callable[[Change], None]] = []
        self.rendered = lru_cache(maxsize=self.rendered_max)(self._render)
        node = self._sealer.genesis()
        self._remember(node)
        self.view = self.view_of((node,))

    @property
    def chain_id(self) -> int:
        """The id that the chain claims."""
        return self.spec.chain_id

    @property
    def seed(self) -> int:
        """What the chain was made from."""
        return self.spec.seed

    @property
    def cast(self) -> Cast:
        """The people, tokens and pools of the chain."""
        return cast_of(self.spec.seed)

    @property
    def room(self) -> int:
        """How many more blocks may be sealed."""
        return self.blocks_max - len(self._nodes) + 1

    @property
    def head(self) -> Block:
        """The last canonical block."""
        return self.view.nodes[-1].block

    @property
    def state(self) -> Mapping[bytes, int]:
        """The state after the head."""
        return MappingProxyType(self._state)

    def blocks(self) -> tuple[Block, ...]:
        """The canonical blocks, by number."""
        return tuple(node.block for node in self.view.nodes)

    def view_of(self, nodes: tuple[Node, ...]) -> View:
        """A view of some nodes, with safe and finalized as deep as the spec says."""
        head = len(nodes) - 1
        safe, finalized = head - self.spec.safe_depth, head - self.spec.finality_depth
        return View(self, nodes, max(0, safe), max(0, finalized))

    def node(self, block_hash: bytes) -> Node | None:
        """A block that was ever sealed."""
        return self._nodes.get(block_hash)

    def places(self, transaction_hash: bytes) -> tuple[tuple[int, int, bytes], ...]:
        """Where a transaction ever was: block number, index and block hash."""
        return self._places.get(transaction_hash, ())

    def value_at(self, key: bytes, number: int) -> int:
        """A value of the state after a canonical block."""
        with self._lock:
            for node in self.view.nodes[number + 1 :]:
                if key in node.before:
                    return node.before[key] or 0
            return self._state.get(key, 0)

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call a function after every change, in the thread that made it.

        Returns
        -------
        Callable
            Stops it.
        """
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def mine(self, blocks: int = 1) -> Change:
        """Extend the canonical chain.

        Raises
        ------
        ValueError
            If the chain has no room for that many.
        """
        with self._lock:
            self._check_room(blocks)
            nodes = list(self.view.nodes)
            return self._publish(nodes, (), self._extend(nodes, blocks))

    def reorg(self, depth: int, new_blocks: int | None = None) -> Change:
        """Replace the last blocks by another branch.

        Parameters
        ----------
        depth : int
            How many blocks are orphaned; never genesis.
        new_blocks : int, optional
            How many blocks the other branch has; one more than `depth` if not given. It may be
            shorter than what it replaces, even empty.

        Returns
        -------
        Change

        Raises
        ------
        ValueError
            If the chain is not that deep, or has no room for that many.
        """
        with self._lock:
            nodes = list(self.view.nodes)
            if not 0 <= depth < len(nodes):
                raise ValueError(f"cannot orphan {depth} of {len(nodes) - 1} blocks")
            count = depth + 1 if new_blocks is None else new_blocks
            self._check_room(count)
            self._branches += 1
            self._branch = self._branches
            removed = self._rewind(nodes, len(nodes) - depth)
            added = self._extend(nodes, count)
            return self._publish(nodes, removed, added)

    def switch(self, block_hash: bytes) -> Change:
        """Make a known block the head again, with all its ancestors.

        Raises
        ------
        KeyError
            If no such block was ever sealed.
        """
        with self._lock:
            nodes = list(self.view.nodes)
            branch = [self._nodes[block_hash]]
            while not self._canonical(nodes, branch[-1].block):
                branch.append(self._nodes[branch[-1].block.header.parent_hash])
            removed = self._rewind(nodes, branch.pop().block.header.number + 1)
            self._branches += 1
            self._branch = self._branches
            for node in reversed(branch):
                self._state.update(node.after)
                nodes.append(node)
            return self._publish(nodes, removed, [node.block for node in reversed(branch)])

    @staticmethod
    def _canonical(nodes: list[Node], block: Block) -> bool:
        number = block.header.number
        return number < len(nodes) and nodes[number].block.hash == block.hash

    def _check_room(self, blocks: int) -> None:
        if not 0 <= blocks <= self.room:
            raise ValueError(f"no room for {blocks} blocks beyond {self.blocks_max} (blocks_max)")

    def _rewind(self, nodes: list[Node], length: int) -> list[Block]:
        removed = nodes[length:]
        for node in reversed(removed):
            for key, value in node.before.items():
                if value is None:
                    del self._state[key]
                else:
                    self._state[key] = value
        del nodes[length:]
        return [node.block for node in removed]

    def _extend(self, nodes: list[Node], count: int) -> list[Block]:
        added = []
        for _ in range(count):
            node = self._sealer.seal(nodes[-1].block, self._branch)
            self._remember(node)
            nodes.append(node)
            added.append(node.block)
        return added

    def _remember(self, node: Node) -> None:
        block = node.block
        self._nodes[block.hash] = node
        for index, transaction in enumerate(block.transactions):
            place = (block.header.number, index, block.hash)
            self._places[transaction.hash] = (*self.places(transaction.hash), place)

    def _publish(
        self, nodes: list[Node], removed: list[Block] | tuple[()], added: list[Block]
    ) -> Change:
        self.view = self.view_of(tuple(nodes))
        change = Change(tuple(removed), tuple(added))
        for listener in tuple(self._listeners):
            listener(change)
        return change

    def _render(self, block_hash: bytes) -> Rendered:
        return render_block(self._nodes[block_hash].block, self.spec.chain_id)
