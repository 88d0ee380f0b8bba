"""What an agent made or could not take in, the message that says so out; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from processors.fork import ForkState, Halt
from processors.reorg import snapshot
from processors.steps import Derived
from schemas.codec import (
    decode_finality_advanced,
    decode_head_observed,
    encode_dead_letter,
    encode_fork_update,
    message_name,
)
from schemas.errors_process import ForkHalted
from schemas.segments import (
    AGAIN,
    DEAD_LETTERS,
    FORKS,
    LETTER_SOURCE,
    DeadLetter,
    Envelope,
    FinalityAdvanced,
    ForkUpdate,
    HeadObserved,
    segment_envelope,
)

SNAPSHOT = "snapshot"
"""Header of a fork update that is a whole snapshot: who knows nothing yet can begin with it."""
HEARD = "heard"
"""Header of a fork update: up to which offset of ``raw.heads`` whoever told it had heard the chain.

Who follows can tell by it what a worker says that has lost the partition and does not know yet.
"""


def derived_envelope(derived: Derived, key: bytes, again: str | None) -> Envelope:
    """The message of a derived segment.

    Parameters
    ----------
    derived
        The segment.
    key
        Of its source: both are of one grid segment.
    again
        The request for which the source was ingested once more, if any.
    """
    envelope = segment_envelope(derived.name, 1, derived.value)
    headers = envelope.headers if again is None else envelope.headers | {AGAIN: again}
    return replace(envelope, key=key, headers=headers)


def header_texts(headers: Any) -> list[tuple[str, str]]:
    """Headers as a message has them, as text; a foreign one may hold no text, or nothing."""
    return [(name, (value or b"").decode(errors="replace")) for name, value in headers or ()]


def dead_letter_envelope(letter: DeadLetter, headers: Iterable[tuple[str, str]]) -> Envelope:
    """The message of a dead letter.

    Parameters
    ----------
    letter
        The letter; its key is that of what was refused.
    headers
        Of what was refused: they are kept, for another drive.
    """
    kept = {f"{LETTER_SOURCE}{name}": text for name, text in headers}
    value = encode_dead_letter(letter)
    return Envelope(DEAD_LETTERS, letter.key, value, {"schema": "DeadLetter", **kept})


def snapshot_envelope(state: ForkState, heard: int, observed_at_ms: int) -> Envelope:
    """The message of a whole fork state that knows ``raw.heads`` up to the offset `heard`."""
    envelope = fork_envelope(snapshot(state, observed_at_ms), heard)
    return replace(envelope, headers=envelope.headers | {SNAPSHOT: "1"})


def read_observed(value: bytes) -> HeadObserved | FinalityAdvanced:
    """A message of ``raw.heads``; raises UnknownMessage where it is no such message."""
    if message_name(value) == "FinalityAdvanced":
        return decode_finality_advanced(value)
    return decode_head_observed(value)


def fork_envelope(update: ForkUpdate, heard: int) -> Envelope:
    """The message of a fork update that follows from the head at the offset `heard`."""
    headers = {
        "chain_id": str(update.chain_id),
        "lane": "head",
        "from": str(update.added[0].number if update.added else update.head.number),
        "to": str(update.head.number),
        "last_hash": update.head.hash.hex(),
        "schema": "ForkUpdate",
        HEARD: str(heard),
    }
    return Envelope(FORKS, str(update.chain_id).encode(), encode_fork_update(update), headers)


def halted(chain_id: int, halt: Halt) -> ForkHalted:
    """The error for a chain that may not go on without its operator."""
    error = halt.error
    return ForkHalted(
        chain_id=chain_id,
        halt_code=error.code,
        halt=error.what_text,
        halt_why=error.why_text,
        halt_fix=error.fix_text,
    )
