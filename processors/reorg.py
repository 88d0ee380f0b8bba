"""Headers and finality in, the canonical chain's changes out: the reorg state machine.

The state is a value: the canonical chain of the unfinalised window, the headers beside it, and
each provider's last word. ``advance`` takes one observation and returns the next state with the
events that follow. It never fetches, and knows no clock but ``observed_at_ms``.

What a header can be
--------------------
1. Known already: nothing, unless a provider names it as its head (6, 7).
2. An ancestor fetched to connect a head (``is_head`` false): kept. It never moves the head by
   itself; where a head waited for it, that head is looked at again.
3. A head whose parent is our head: the chain grows by it.
4. A head further up whose ancestors are all known: the chain grows by all of them at once.
5. A head whose ancestors are not all known: parked, and ``NeedBlock`` asks for the first one
   missing. The chain stays as it is until that head connects. One head waits per provider.
6. A head on another branch, higher, equal or lower: a reorg. Blocks leave down to the common
   ancestor and the branch's blocks join, in one ``ForkUpdate``. A→B→A is two of these.
7. A head that is an ancestor of ours (a reorg to the parent or deeper): blocks leave, none join.
8. A head higher than ours, on a branch that leaves our chain below the finalized block: ``Halt``.
9. A head that is not higher, on such a branch or on our chain below the finalized block: a node
   that lags, or the late word of a second ingester about a branch that was left. It is ignored:
   were that branch the true one, it would outgrow our head, and be 8.

Whose word counts
-----------------
A head higher than ours counts from anyone. One that is not higher (6, 7) counts from a provider
that itself named our head before: it has changed its mind, which is what a reorg is. From a
provider that never named our head it is more likely a node that lags; it counts only when no one
who named our head has spoken for ``provider_silence_ms`` and it is not an ancestor of ours. With
one provider its last head is always ours; with several, the chain cannot swing between two nodes.
(Endpoints that balance over several nodes answer with stale heads, too: the head follower names
an ancestor of its last head only when the node no longer has that one.)

Words can come twice, and out of order. One that is older than what its provider said last is not
its last word, and no word on the head; its header is kept.

Finality
--------
``safe`` and ``finalized`` count when the hash they name is canonical here, else they are parked
until it is. Finalized never goes back; safe goes back to the common ancestor in a reorg.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from processors.fork import (
    Applied,
    Event,
    Finalized,
    ForkLimits,
    ForkState,
    Halt,
    Header,
    NeedBlock,
    Word,
)
from schemas.errors_canon import HeadOutOfReach, HeadWindowFull, ReorgBelowFinalized
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved


def from_blocks(
    chain_id: int,
    anchor: BlockRef,
    headers: Iterable[BlockRef] = (),
    limits: ForkLimits | None = None,
) -> ForkState:
    """A state from stored blocks, at start and at restart.

    Parameters
    ----------
    chain_id
        The chain.
    anchor
        A block that is final: the newest finalized one that is stored, or the last block of the
        history that was loaded.
    headers
        The stored canonical blocks after it, oldest first, without gaps.
    limits
        Bounds; the defaults where None.

    Raises
    ------
    ValueError
        If the heights are not contiguous.
    """
    chain = (anchor, *headers)
    for below, above in itertools.pairwise(chain):
        if above.number != below.number + 1:
            raise ValueError(f"block {above.number} follows {below.number}")
    return ForkState(chain_id, chain, anchor, limits=limits or ForkLimits())


def snapshot(state: ForkState, observed_at_ms: int) -> ForkUpdate:
    """The whole window as one ForkUpdate, for a follower that knows nothing yet.

    It is told from a change by what it adds: its own finalized block comes first.
    """
    start = state.finalized.number - state.chain[0].number
    return _update(state, (), state.chain[start:], observed_at_ms)


def advance(
    state: ForkState, observed: HeadObserved | FinalityAdvanced
) -> tuple[ForkState, list[Event]]:
    """The state after one observation, and what follows from it.

    Parameters
    ----------
    state
        The state before.
    observed
        A header or a finality word, in any order, any number of times.

    Returns
    -------
    tuple[ForkState, list[Event]]
        The state after it, and ``Applied`` (chain, then finality), ``Finalized``, ``NeedBlock``
        for what is missing, in this order; or ``Halt`` alone. A halted state answers everything
        with its Halt.
    """
    if state.halted is not None:
        return state, [state.halted]
    needs: list[Event] = []
    if isinstance(observed, FinalityAdvanced):
        after = _park(state, observed)
    else:
        after = _keep(state, observed)
        after, pending = _hear(after, observed)
        after, needs = _settle(after, pending)
    if after.halted is not None:
        return replace(state, halted=after.halted), [after.halted]
    final = _advance_finality(after)
    return final, [*_changes(state, after, final, observed.observed_at_ms), *needs]


def _keep(state: ForkState, header: HeadObserved) -> ForkState:
    """Keep a header that is new and within reach."""
    root = state.chain[0].number
    known = state.holds(header.number, header.hash) or header.hash in state.side
    reach = state.head.number + state.limits.gap_blocks_max
    if known or header.number <= root or header.number > reach:
        return state
    side = dict(state.side)
    side[header.hash] = Header(header.number, header.hash, header.parent_hash)
    if len(side) > state.limits.side_headers_max:
        lowest = min(side.values(), key=lambda kept: (kept.number, kept.hash))
        del side[lowest.hash]
    return replace(state, side=side)


def _hear(state: ForkState, header: HeadObserved) -> tuple[ForkState, list[str]]:
    """Take down a provider's word; name the providers whose heads may connect now."""
    pending = [
        name
        for name, word in sorted(state.words.items(), key=lambda item: item[1].observed_at_ms)
        if word.missing is not None and word.missing.hash == header.hash
    ]
    before = state.words.get(header.provider)
    late_ms = before.observed_at_ms - header.observed_at_ms if before else 0
    if not header.is_head or 0 < late_ms <= state.limits.late_word_ms_max:
        return state, pending
    ref = BlockRef(header.number, header.hash)
    words = {name: word for name, word in state.words.items() if name != header.provider}
    if len(words) >= state.limits.providers_max:
        del words[min(words, key=lambda name: words[name].observed_at_ms)]
    vouched = before.vouched if before else None
    words[header.provider] = Word(header.observed_at_ms, vouched, ref, ref)
    pending = [name for name in pending if name in words and name != header.provider]
    return replace(state, words=words), [*pending, header.provider]


def _settle(state: ForkState, providers: list[str]) -> tuple[ForkState, list[Event]]:
    """Look at heads that waited: they connect, wait for another ancestor, or do not count."""
    needs: list[Event] = []
    for provider in providers:
        word = state.words[provider]
        assert word.wanted is not None
        assert word.missing is not None
        gap = word.wanted.number - state.head.number
        if gap > state.limits.gap_blocks_max:
            data = {"head": word.wanted.number, "blocks": gap, "ours": state.head.number}
            error = HeadOutOfReach(**data, blocks_max=state.limits.gap_blocks_max)
            return replace(state, halted=Halt(error)), []
        end = _walk(state, word.missing)
        if (
            end is not None
            and end.number > state.finalized.number
            and not state.holds(end.number, end.hash)
        ):
            state = _with_word(state, provider, replace(word, missing=end))
            needs.append(NeedBlock(end.hash, end.number))
            continue
        state = _connected(state, provider, end)
        if state.halted is not None:
            return state, []
    return state, needs


def _walk(state: ForkState, start: BlockRef) -> BlockRef | None:
    """Down the known headers from `start`: to the chain, what is missing, or the window's end.

    None where a header's height contradicts its child's.
    """
    number, block_hash = start.number, start.hash
    root = state.chain[0].number
    while not state.holds(number, block_hash) and number > root:
        header = state.side.get(block_hash)
        if header is None:
            break
        if header.number != number:
            return None
        number, block_hash = number - 1, header.parent_hash
    return BlockRef(number, block_hash)


def _connected(state: ForkState, provider: str, ancestor: BlockRef | None) -> ForkState:
    """A head whose ancestors are known down to `ancestor`: adopt its branch if its word counts."""
    word = state.words[provider]
    assert word.wanted is not None
    settled = replace(word, wanted=None, missing=None)
    if ancestor is None:
        return _with_word(state, provider, settled)
    final = state.finalized
    shared = ancestor if state.holds(ancestor.number, ancestor.hash) else None
    below = shared is None or shared.number < final.number
    if below and word.wanted.number <= state.head.number:
        return _with_word(state, provider, settled)
    counts = _counts(state, provider, word.wanted, shared)
    state = _with_word(state, provider, replace(settled, vouched=word.wanted.hash))
    if not counts:
        return state
    if shared is None or below:
        error = ReorgBelowFinalized(
            head=word.wanted.number,
            finalized=final.number,
            to_block=max(0, ancestor.number if shared else ancestor.number - 1),
        )
        return replace(state, halted=Halt(error))
    return _adopt(state, word.wanted, shared)


def _counts(state: ForkState, provider: str, wanted: BlockRef, shared: BlockRef | None) -> bool:
    """Whether a provider's connected head becomes ours; see the module's docstring."""
    head, word = state.head, state.words[provider]
    if wanted == head or word.vouched == head.hash or wanted.number > head.number:
        return True
    fresh = word.observed_at_ms - state.limits.provider_silence_ms
    spoken_for = any(
        other.vouched == head.hash and other.observed_at_ms >= fresh
        for name, other in state.words.items()
        if name != provider
    )
    return not spoken_for and shared != wanted


def _adopt(state: ForkState, wanted: BlockRef, shared: BlockRef) -> ForkState:
    """Replace the chain above `shared` by the branch that ends in `wanted`."""
    side, branch, block_hash = state.side, [], wanted.hash
    while block_hash != shared.hash:
        header = side[block_hash]
        branch.append(BlockRef(header.number, header.hash))
        block_hash = header.parent_hash
    keep = shared.number - state.chain[0].number + 1
    if branch or len(state.chain) > keep:
        side = dict(side)
        for joined in branch:
            del side[joined.hash]
        for index in range(keep, len(state.chain)):
            left = state.chain[index]
            side[left.hash] = Header(left.number, left.hash, state.chain[index - 1].hash)
    chain = (*state.chain[:keep], *reversed(branch))
    safe = state.safe
    if safe is not None and safe.number > shared.number:
        safe = shared
    waiting = chain[-1].number - state.finalized.number
    if waiting > state.limits.window_blocks_max:
        data = {"blocks": waiting, "finalized": state.finalized.number}
        error = HeadWindowFull(**data, blocks_max=state.limits.window_blocks_max)
        return replace(state, halted=Halt(error))
    return replace(state, chain=chain, side=side, safe=safe)


def _park(state: ForkState, word: FinalityAdvanced) -> ForkState:
    """Keep a finality word until its block is canonical, unless it says nothing new."""
    reached = state.finalized if word.kind == "finalized" else state.safe or state.finalized
    twin = any((p.kind, p.hash) == (word.kind, word.hash) for p in state.parked)
    if word.number <= reached.number or twin:
        return state
    parked = sorted((*state.parked, word), key=lambda kept: kept.number)
    return replace(state, parked=tuple(parked[-state.limits.finality_parked_max :]))


def _advance_finality(state: ForkState) -> ForkState:
    """Take the finality words whose blocks are canonical, and forget what no reorg can touch."""
    finalized, safe = state.finalized, state.safe
    for word in state.parked:
        if state.holds(word.number, word.hash):
            ref = BlockRef(word.number, word.hash)
            if word.kind == "finalized" and ref.number > finalized.number:
                finalized = ref
            if safe is None or ref.number > safe.number:
                safe = ref
    if finalized == state.finalized and safe == state.safe:
        return state
    floors = {"finalized": finalized.number, "safe": safe.number if safe else finalized.number}
    parked = tuple(word for word in state.parked if word.number > floors[word.kind])
    chain, side = state.chain, state.side
    spare = finalized.number - chain[0].number - state.limits.tail_blocks
    if spare > state.limits.tail_blocks:
        chain = chain[spare:]
        side = {key: header for key, header in side.items() if header.number > chain[0].number}
    return replace(state, chain=chain, side=side, finalized=finalized, safe=safe, parked=parked)


def _changes(
    before: ForkState, adopted: ForkState, after: ForkState, observed_at_ms: int
) -> list[Event]:
    """What differs, as events: first the chain (`adopted`), then its finality (`after`).

    They are never one update: what an update adds lies above what it calls finalized, which
    tells it from a snapshot.
    """
    events: list[Event] = []
    if adopted.head != before.head:
        shared = min(before.head.number, adopted.head.number)
        while before.at(shared) != adopted.at(shared):
            shared -= 1
        keep = shared - before.chain[0].number + 1
        removed, added = before.chain[keep:][::-1], adopted.chain[keep:]
        events.append(Applied(_update(adopted, removed, added, observed_at_ms)))
    if (after.finalized, after.safe) != (adopted.finalized, adopted.safe):
        events.append(Applied(_update(after, (), (), observed_at_ms)))
    if after.finalized != before.finalized:
        events.append(Finalized(after.finalized))
    return events


def _update(
    state: ForkState,
    removed: tuple[BlockRef, ...],
    added: tuple[BlockRef, ...],
    observed_at_ms: int,
) -> ForkUpdate:
    return ForkUpdate(
        state.chain_id, state.head, state.safe, state.finalized, removed, added, observed_at_ms
    )


def _with_word(state: ForkState, provider: str, word: Word) -> ForkState:
    return replace(state, words={**state.words, provider: word})
