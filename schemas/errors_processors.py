"""What can go wrong between raw segments and events: the coded errors of declaring what to decode.

A single log that cannot be decoded is no error: it is a row of decode_failures with its reason.
"""

from __future__ import annotations

from schemas.errors import Permanent


class MalformedAbi(Permanent):
    """An ABI file, or an event's declaration, that cannot be read."""

    code = "HR-3101"
    what = "{where}: {reason}"
    why = "Every event of contract {contract} becomes a table, so its ABI must be exact."
    fix = (
        "Give the JSON that the compiler or the explorer shows, or declare events as in Solidity: "
        '"Transfer(address indexed from, address indexed to, uint256 value)".'
    )


class MalformedContract(Permanent):
    """A [[contracts]] entry of the settings file that cannot be used."""

    code = "HR-3102"
    what = "{where}: {reason}"
    why = "A [[contracts]] entry says which events of which addresses become tables."
    fix = "Correct that entry of the settings file; the reference lists its keys."


class TableNameTaken(Permanent):
    """Two declarations that would share a table."""

    code = "HR-3103"
    what = "contract {contract} would declare the table {table}, which {holder} has already"
    why = "A table holds the events of one declaration; two would mix up their rows."
    fix = "Rename the contract in its [[contracts]] entry."


class EventsIndistinct(Permanent):
    """Two events whose first topics cannot be told apart by the decoder's index."""

    code = "HR-3104"
    what = "{first} and {second} share the first 8 bytes of topic0"
    why = "The decoder finds events by them; no two published events are known to share them."
    fix = "Leave one of the two out; a shared prefix is no accident, so look who made that ABI."
