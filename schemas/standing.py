"""Say of each column, at each level of verification and on each chain, what its value rests on."""

from __future__ import annotations

from enum import StrEnum

from schemas.chains import ChainFacts
from schemas.tables import DERIVED, NOTHING, SIGNATURE, WITHDRAWALS_ROOT, ColumnSpec, Verification


class Standing(StrEnum):
    """What a stored value rests on."""

    proven = "proven"
    """A hash or root of the header covers it."""
    derived = "derived"
    """It follows from proven values, and was compared with what follows."""
    checked = "checked"
    """It agrees with what the header says, but other values would, too."""
    told = "the node's word"
    """Nothing but the node says so."""


NEEDS = {
    "header": Verification.header,
    "receiptsRoot": Verification.receipts,
    "transactionsRoot": Verification.full,
    WITHDRAWALS_ROOT: Verification.full,
    SIGNATURE: Verification.full,
    DERIVED: Verification.full,
}
"""The level from which on each proof is made; `none` is at no level."""


def standing(spec: ColumnSpec, level: Verification, facts: ChainFacts) -> Standing:
    """What the values of a column rest on.

    Parameters
    ----------
    spec : ColumnSpec
        A declared column.
    level : Verification
        The level that was asked for; the chain may reach less.
    facts : ChainFacts
        The chain.
    """
    reached = min(level, facts.verification_reached)
    listed = spec.proven_by != WITHDRAWALS_ROOT or facts.withdrawals_in_header
    if spec.proven_by != NOTHING and listed and reached >= NEEDS[spec.proven_by]:
        return Standing.derived if spec.proven_by in (SIGNATURE, DERIVED) else Standing.proven
    if spec.checked_by and reached >= Verification.header:
        return Standing.checked
    return Standing.told
