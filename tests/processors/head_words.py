"""A seed in, what one node says of its heads and of finality out."""

from __future__ import annotations

import random

from schemas.segments import BlockRef, FinalityAdvanced, HeadObserved

Message = HeadObserved | FinalityAdvanced


def block(number: int, branch: int = 0) -> BlockRef:
    return BlockRef(number, bytes([branch]) + number.to_bytes(31))


def head(ref: BlockRef, parent: BlockRef, at: int = 0) -> HeadObserved:
    return HeadObserved(1, ref.number, ref.hash, parent.hash, 0, at, "node")


def final(ref: BlockRef, kind: str = "finalized") -> FinalityAdvanced:
    return FinalityAdvanced(1, "safe" if kind == "safe" else "finalized", ref.number, ref.hash, 0)


def random_heads(rng: random.Random, count: int) -> list[Message]:
    """One node's words: it grows, goes back a little, grows another branch; finality follows."""
    chain = [block(100)]
    told: list[Message] = [final(chain[0])]
    final_to = 0
    for step in range(count):
        chance = rng.random()
        if chance < 0.15 and len(chain) - 1 > final_to + 1:
            del chain[rng.randrange(final_to + 1, len(chain)) :]
        if chance > 0.9 and len(chain) - 3 > final_to:
            final_to = rng.randrange(final_to, len(chain) - 2)
            told.append(final(chain[final_to]))
        else:
            grown = BlockRef(chain[-1].number + 1, rng.randbytes(32))
            told.append(head(grown, chain[-1], step))
            chain.append(grown)
    return told
