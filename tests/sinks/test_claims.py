"""Who publishes a chain: one at a time, and no taking of turns."""

from __future__ import annotations

from typing import Literal

from schemas.segments import PublisherClaim
from sinks.claims import SILENT_SECONDS, Claims, Owner

CHAIN_ID = 1


def word(
    kind: Literal["claim", "beat", "release"],
    publisher: str,
    generation: int = 0,
    chain_id: int = CHAIN_ID,
) -> PublisherClaim:
    return PublisherClaim(chain_id, kind, generation, publisher, "host", 7, 0)


def alive(_owner: Owner) -> bool:
    return False


def dead(_owner: Owner) -> bool:
    return True


def test_a_chain_that_nobody_claimed_may_be_claimed() -> None:
    claims = Claims(CHAIN_ID, 0.0)
    claims.hear(4, word("claim", "other", chain_id=2), 0.0)

    assert claims.may_claim(0.0, alive)
    assert claims.superseded_by(0) is None


def test_who_shows_signs_of_life_is_waited_for() -> None:
    claims = Claims(CHAIN_ID, 0.0)
    claims.hear(4, word("claim", "one"), 1.0)
    assert not claims.may_claim(1.0 + SILENT_SECONDS - 0.1, alive)
    claims.hear(5, word("beat", "one", 5), 4.0)
    assert not claims.may_claim(4.0 + SILENT_SECONDS - 0.1, alive)

    assert claims.may_claim(4.0 + SILENT_SECONDS, alive)
    assert claims.may_claim(4.0, dead)


def test_who_has_released_the_chain_is_not_waited_for() -> None:
    claims = Claims(CHAIN_ID, 0.0)
    claims.hear(4, word("claim", "one"), 1.0)
    claims.hear(5, word("release", "one", 5), 2.0)

    assert claims.may_claim(2.0, alive)


def test_the_newest_claim_wins_whatever_an_older_one_says_later() -> None:
    claims = Claims(CHAIN_ID, 0.0)
    claims.hear(4, word("claim", "one"), 1.0)
    claims.hear(6, word("claim", "two"), 2.0)
    claims.hear(7, word("beat", "one", 5), 3.0)
    claims.hear(8, word("release", "one", 5), 3.0)

    assert not claims.may_claim(3.0, alive)
    owner = claims.superseded_by(5)
    assert owner is not None
    assert (owner.generation, owner.publisher) == (7, "two")
    assert claims.superseded_by(7) is None
    assert str(owner) == "generation 7, process 7 on host"
