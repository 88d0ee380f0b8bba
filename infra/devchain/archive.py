"""A spec in, a folder of pre-rendered blocks out; a folder in, a chain that can be served out.

For benchmarks: nothing is rendered or searched when a request comes. A block is a slice of a
memory-mapped file, and eth_getLogs is a comparison of arrays and some slices. An archived chain
does not change, and knows no balances.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from infra.devchain.logfilter import TOPICS_MAX, LogFilter
from infra.devchain.render import Rendered, render_block
from infra.devchain.rpc import SERVER_ERROR, Refusal
from infra.devchain.sealing import Spec, stream_blocks
from infra.devchain.truth import Totals

PAYLOAD, INDEX, FACTS, TRUTH = "blocks.jsonl", "index.npz", "chain.json", "truth.json"
TRUTH_VERSION = 2
"""Rises when the totals that an archive holds are of other tables or columns."""
_ABSENT = 0
Array = npt.NDArray[Any]


class _Names:
    """Numbers values in order of appearance, from 1."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def number(self, value: bytes) -> int:
        return self.numbers.setdefault(value, len(self.numbers) + 1)

    def table(self) -> Array:
        """The values, uint8[n, width]."""
        width = len(next(iter(self.numbers), b" "))
        return np.frombuffer(b"".join(self.numbers), np.uint8).reshape(-1, width)


class _Index:
    """Where everything is, while the archive is written."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.blocks = array("Q")
        """Per block: begin, end of the header, begin and end of the receipts."""
        self.firsts = array("Q")
        """Per block: number of its first transaction and of its first log."""
        self.transactions = array("Q")
        """Per transaction: first 8 bytes of the hash, begin and end, the receipt's begin and end,
        block."""
        self.logs = array("Q")
        """Per log: begin and end."""
        self.names = array("I")
        """Per log: address and topics, by number."""
        self.addresses = _Names()
        self.topics = _Names()

    def add(self, rendered: Rendered, begin: int) -> None:
        """Note the places of a block whose JSON begins at an offset of the file."""
        receipts = begin + len(rendered.full)
        body = begin + rendered.full.index(rendered.transactions)
        self.hashes.append(rendered.hash)
        self.firsts.extend((len(self.transactions) // 6, len(self.logs) // 2))
        self.blocks.extend(
            (begin, begin + len(rendered.header), receipts, receipts + len(rendered.receipts))
        )
        for sent, place, receipt in zip(
            rendered.transaction_hashes,
            rendered.transaction_spans,
            rendered.receipt_spans,
            strict=True,
        ):
            prefix = int.from_bytes(sent[:8], "big")
            where = (body + place[0], body + place[1], receipts + receipt[0], receipts + receipt[1])
            self.transactions.extend((prefix, *where, rendered.number))
        for log, span in zip(rendered.logs, rendered.log_spans, strict=True):
            self.logs.extend((receipts + span[0], receipts + span[1]))
            numbers = [self.topics.number(topic) for topic in log.topics]
            absent = [_ABSENT] * (TOPICS_MAX - len(numbers))
            self.names.extend((self.addresses.number(log.address), *numbers, *absent))

    def save(self, path: Path) -> None:
        """Write the arrays."""
        np.savez(
            path,
            hashes=np.frombuffer(b"".join(self.hashes), np.uint8).reshape(-1, 32),
            blocks=np.array(self.blocks).reshape(-1, 4),
            firsts=np.array(self.firsts).reshape(-1, 2),
            transactions=np.array(self.transactions).reshape(-1, 6),
            logs=np.array(self.logs).reshape(-1, 2),
            names=np.array(self.names).reshape(-1, 1 + TOPICS_MAX),
            addresses=self.addresses.table(),
            topics=self.topics.table(),
        )


def write_archive(spec: Spec, blocks: int, folder: Path) -> None:
    """Make a chain and render it into a folder, with the totals of its truth.

    Parameters
    ----------
    spec : Spec
    blocks : int
        How many follow genesis.
    folder : Path
        Made if missing; what is in it is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index, totals = _Index(), Totals()
    begin = 0
    with (folder / PAYLOAD).open("wb") as payload:
        for block in stream_blocks(spec, blocks):
            rendered = render_block(block, spec.chain_id)
            index.add(rendered, begin)
            totals.add(block)
            begin += payload.write(rendered.full)
            begin += payload.write(rendered.receipts)
            begin += payload.write(b"\n")
    index.save(folder / INDEX)
    # Sums are beyond what JSON readers take for numbers, so they are text.
    told = {
        table: {name: str(total) for name, total in sums.items()}
        for table, sums in totals.tables.items()
    }
    (folder / TRUTH).write_text(json.dumps(told, indent=1), "utf-8")
    (folder / FACTS).write_text(json.dumps(facts_of(spec, blocks), indent=1), "utf-8")


def facts_of(spec: Spec, blocks: int) -> dict[str, int | bool | float]:
    """What an archive was made from: two of the same facts are the same, byte for byte."""
    return {
        "seed": spec.seed,
        "chain_id": spec.chain_id,
        "blocks": blocks,
        "transactions": spec.budget.transactions,
        "logs": spec.budget.logs,
        "exact": spec.budget.exact,
        "finality_depth": spec.finality_depth,
        "safe_depth": spec.safe_depth,
        "start_time": spec.start_time,
        "block_time_seconds": spec.block_time_seconds,
        "truth": TRUTH_VERSION,
        "signed": True,
    }


def open_archive(spec: Spec, blocks: int, folder: Path) -> Archive:
    """The archive in a folder, written first unless it is there and of the same facts."""
    facts = folder / FACTS
    if not facts.is_file() or json.loads(facts.read_text("utf-8")) != facts_of(spec, blocks):
        facts.unlink(missing_ok=True)
        write_archive(spec, blocks, folder)
    return Archive(folder)


class Archive:
    """An archived chain, ready to be served."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, int] = json.loads((folder / FACTS).read_text("utf-8"))
        self.truth: dict[str, dict[str, int]] = {
            table: {name: int(total) for name, total in sums.items()}
            for table, sums in json.loads((folder / TRUTH).read_text("utf-8")).items()
        }
        with (folder / PAYLOAD).open("rb") as payload:
            self._payload = mmap.mmap(payload.fileno(), 0, access=mmap.ACCESS_READ)
        with np.load(folder / INDEX) as index:
            self._arrays: dict[str, Array] = {name: index[name] for name in index.files}
        self.hashes: list[bytes] = [row.tobytes() for row in self._arrays["hashes"]]
        self.numbers = {block_hash: number for number, block_hash in enumerate(self.hashes)}

    @property
    def chain_id(self) -> int:
        """Its id."""
        return self.facts["chain_id"]

    @property
    def seed(self) -> int:
        """What it was made from."""
        return self.facts["seed"]

    @property
    def view(self) -> ArchiveView:
        """The whole chain."""
        return ArchiveView(self, len(self.hashes) - 1)

    def cut(self, begin: int, end: int) -> bytes:
        """A slice of the file."""
        return self._payload[begin:end]

    def places(self, number: int) -> list[int]:
        """A block's begin, end of header, begin and end of receipts."""
        places: list[int] = self._arrays["blocks"][number].tolist()
        return places

    @cached_property
    def _by_hash(self) -> tuple[Array, Array]:
        prefixes = self._arrays["transactions"][:, 0]
        order = np.argsort(prefixes, kind="stable")
        return order, prefixes[order]

    def find_transaction(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Number of its block and its index there."""
        order, prefixes = self._by_hash
        prefix = np.uint64(int.from_bytes(transaction_hash[:8], "big"))
        at = int(np.searchsorted(prefixes, prefix))
        if at == len(prefixes) or prefixes[at] != prefix:
            return None
        found = int(order[at])
        number = int(self._arrays["transactions"][found, 5])
        index = found - int(self._arrays["firsts"][number, 0])
        text = self.block(number).transaction(index)
        return (number, index) if transaction_hash.hex().encode() in text else None

    def part(self, number: int, index: int, column: int) -> bytes:
        """A transaction (column 1) or its receipt (column 3)."""
        row = int(self._arrays["firsts"][number, 0]) + index
        begin, end = self._arrays["transactions"][row, column : column + 2].tolist()
        return self.cut(begin, end)

    def block(self, number: int) -> ArchivedBlock:
        """A block."""
        return ArchivedBlock(self, number)

    def logs(self, first: int, last: int, wanted: LogFilter) -> Iterator[bytes]:
        """Logs of a range that a filter wants."""
        firsts = self._arrays["firsts"]
        begin = int(firsts[first, 1])
        end = int(firsts[last + 1, 1]) if last + 1 < len(firsts) else len(self._arrays["logs"])
        names = self._arrays["names"][begin:end]
        spans = self._arrays["logs"][begin:end]
        chosen = np.ones(len(names), np.bool_)
        if wanted.addresses is not None:
            chosen &= _among(names[:, 0], self._address_numbers, wanted.addresses)
        for position, topics in enumerate(wanted.topics, 1):
            if topics is not None:
                chosen &= _among(names[:, position], self._topic_numbers, topics)
            else:
                chosen &= names[:, position] != _ABSENT
        payload = self._payload
        for start, stop in spans[chosen].tolist():
            yield payload[start:stop]

    @cached_property
    def _address_numbers(self) -> dict[bytes, int]:
        return _numbered(self._arrays["addresses"])

    @cached_property
    def _topic_numbers(self) -> dict[bytes, int]:
        return _numbered(self._arrays["topics"])


def _numbered(table: Array) -> dict[bytes, int]:
    return {row.tobytes(): number for number, row in enumerate(table, 1)}


def _among(column: Array, numbers: dict[bytes, int], wanted: frozenset[bytes]) -> Array:
    known = [numbers[value] for value in wanted if value in numbers]
    return column == known[0] if len(known) == 1 else np.isin(column, known)


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    """One block's JSON."""

    archive: Archive
    number: int

    @property
    def full(self) -> bytes:
        """With whole transactions."""
        begin, _, end, _ = self.archive.places(self.number)
        return self.archive.cut(begin, end)

    @property
    def brief(self) -> bytes:
        """With transaction hashes."""
        block = msgspec.json.decode(self.full)
        block["transactions"] = [transaction["hash"] for transaction in block["transactions"]]
        return msgspec.json.encode(block)

    @property
    def header_only(self) -> bytes:
        """Its header."""
        begin, end, _, _ = self.archive.places(self.number)
        return self.archive.cut(begin, end) + b"}"

    @property
    def receipts(self) -> bytes:
        """Its receipts."""
        _, _, begin, end = self.archive.places(self.number)
        return self.archive.cut(begin, end)

    def transaction(self, index: int) -> bytes:
        """One of its transactions."""
        return self.archive.part(self.number, index, 1)

    def receipt(self, index: int) -> bytes:
        """One of its receipts."""
        return self.archive.part(self.number, index, 3)


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """An archived chain up to some head."""

    archive: Archive
    head: int

    @property
    def safe(self) -> int:
        """Number of the safe block."""
        return max(0, self.head - self.archive.facts["safe_depth"])

    @property
    def finalized(self) -> int:
        """Number of the finalized block."""
        return max(0, self.head - self.archive.facts["finality_depth"])

    def behind(self, blocks: int) -> ArchiveView:
        """The same chain some blocks ago."""
        return ArchiveView(self.archive, max(0, self.head - blocks))

    def another(self, blocks: int) -> ArchiveView:
        """Not of an archive: it cannot be made from another genesis."""
        raise ValueError(f"an archived chain cannot be reset to {blocks} blocks")

    def hash_at(self, number: int) -> bytes | None:
        """Hash of a block."""
        return self.archive.hashes[number] if 0 <= number <= self.head else None

    def at(self, number: int) -> ArchivedBlock | None:
        """A block by number."""
        return self.archive.block(number) if 0 <= number <= self.head else None

    def known(self, block_hash: bytes) -> ArchivedBlock | None:
        """A block by hash."""
        number = self.archive.numbers.get(block_hash)
        return None if number is None else self.at(number)

    def transaction(self, transaction_hash: bytes) -> tuple[ArchivedBlock, int] | None:
        """The block that holds a transaction, and its index."""
        found = self.archive.find_transaction(transaction_hash)
        block = self.at(found[0]) if found else None
        return (block, found[1]) if block and found else None

    def logs(self, first: int, last: int, wanted: LogFilter) -> Iterator[bytes]:
        """Logs of a range."""
        return self.archive.logs(first, last, wanted)

    def logs_of(self, block_hash: bytes, wanted: LogFilter) -> Iterator[bytes]:
        """Logs of a block."""
        number = self.archive.numbers[block_hash]
        return self.archive.logs(number, number, wanted)

    def value(self, key: bytes, number: int) -> int:
        """Balances are not archived.

        Raises
        ------
        Refusal
            Always, as a pruned node refuses.
        """
        raise Refusal(SERVER_ERROR, f"missing trie node (state of block {number} is not archived)")
