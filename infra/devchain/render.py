"""A sealed block in, the JSON bytes of its RPC results out.

Each block is rendered once, as three byte strings; logs, receipts and transactions are slices of
them. A log's JSON inside a receipt is the same text that eth_getLogs answers.
"""

from dataclasses import dataclass
from functools import cached_property

from infra.devchain.blocks import EXTRA_DATA, OMMERS_HASH, REQUESTS_HASH
from infra.devchain.envelopes import BLOB_GAS
from infra.devchain.model import Block, Log, Transaction

Span = tuple[int, int]
"""Where a part begins and ends in its byte string."""


@dataclass(frozen=True)
class Rendered:
    """The JSON of one block. Not slotted: the less asked-for forms are made when asked for."""

    number: int
    hash: bytes
    header: bytes
    """The header's object without its closing brace."""
    size: bytes
    """What a full block has beyond a header, before the transactions."""
    withdrawals: bytes
    """The list of withdrawals."""
    transactions: bytes
    """The list of transaction objects."""
    transaction_hashes: tuple[bytes, ...]
    transaction_spans: tuple[Span, ...]
    """In `transactions`."""
    receipts: bytes
    """The list of receipts."""
    receipt_spans: tuple[Span, ...]
    """In `receipts`."""
    logs: tuple[Log, ...]
    log_spans: tuple[Span, ...]
    """In `receipts`."""

    @cached_property
    def header_only(self) -> bytes:
        """The header, as newHeads and eth_getHeaderByNumber give it."""
        return self.header + b"}"

    @cached_property
    def full(self) -> bytes:
        """The block with whole transactions."""
        return self._block(self.transactions)

    @cached_property
    def brief(self) -> bytes:
        """The block with transaction hashes."""
        hashes = ",".join([f'"0x{h.hex()}"' for h in self.transaction_hashes])
        return self._block(f"[{hashes}]".encode())

    def _block(self, transactions: bytes) -> bytes:
        return b"".join(
            (
                self.header,
                self.size,
                b',"transactions":',
                transactions,
                b',"withdrawals":',
                self.withdrawals,
                b"}",
            )
        )

    def log(self, index: int) -> bytes:
        """One log's object."""
        start, stop = self.log_spans[index]
        return self.receipts[start:stop]

    def receipt(self, index: int) -> bytes:
        """One receipt's object."""
        start, stop = self.receipt_spans[index]
        return self.receipts[start:stop]

    def transaction(self, index: int) -> bytes:
        """One transaction's object."""
        start, stop = self.transaction_spans[index]
        return self.transactions[start:stop]


def render_block(block: Block, chain_id: int) -> Rendered:
    """Render a block, its transactions and its receipts.

    Parameters
    ----------
    block : Block
    chain_id : int

    Returns
    -------
    Rendered
    """
    header = block.header
    place = (
        f',"blockNumber":"0x{header.number:x}","blockHash":"0x{block.hash.hex()}"'
        f',"blockTimestamp":"0x{header.timestamp:x}"'
    )
    transactions, transaction_spans = _joined(
        [
            _transaction(transaction, index, place, chain_id)
            for index, transaction in enumerate(block.transactions)
        ]
    )
    receipts = _Receipts(block, place)
    withdrawals = ",".join(
        [
            f'{{"index":"0x{w.number:x}","validatorIndex":"0x{w.validator:x}"'
            f',"address":"0x{w.address.hex()}","amount":"0x{w.amount_gwei:x}"}}'
            for w in block.withdrawals
        ]
    )
    return Rendered(
        number=header.number,
        hash=block.hash,
        header=_header(block).encode(),
        size=f',"size":"0x{block.size:x}","uncles":[]'.encode(),
        withdrawals=f"[{withdrawals}]".encode(),
        transactions=transactions,
        transaction_hashes=tuple([t.hash for t in block.transactions]),
        transaction_spans=transaction_spans,
        receipts=receipts.text(),
        receipt_spans=tuple(receipts.spans),
        logs=tuple([log for t in block.transactions for log in t.logs]),
        log_spans=tuple(receipts.log_spans),
    )


def _joined(objects: list[str]) -> tuple[bytes, tuple[Span, ...]]:
    """A JSON list of objects, and where each is in it."""
    spans = []
    start = 1
    for text in objects:
        stop = start + len(text)
        spans.append((start, stop))
        start = stop + 1
    return f"[{','.join(objects)}]".encode(), tuple(spans)


def _header(block: Block) -> str:
    header = block.header
    return (
        f'{{"number":"0x{header.number:x}","hash":"0x{block.hash.hex()}"'
        f',"parentHash":"0x{header.parent_hash.hex()}","sha3Uncles":"0x{OMMERS_HASH.hex()}"'
        f',"miner":"0x{header.miner.hex()}","stateRoot":"0x{header.state_root.hex()}"'
        f',"transactionsRoot":"0x{header.transactions_root.hex()}"'
        f',"receiptsRoot":"0x{header.receipts_root.hex()}","logsBloom":"0x{header.bloom.hex()}"'
        f',"difficulty":"0x0","gasLimit":"0x{header.gas_limit:x}"'
        f',"gasUsed":"0x{header.gas_used:x}","timestamp":"0x{header.timestamp:x}"'
        f',"extraData":"0x{EXTRA_DATA.hex()}","mixHash":"0x{header.mix_hash.hex()}"'
        f',"nonce":"0x0000000000000000","baseFeePerGas":"0x{header.base_fee:x}"'
        f',"withdrawalsRoot":"0x{header.withdrawals_root.hex()}"'
        f',"blobGasUsed":"0x{header.blob_gas_used:x}"'
        f',"excessBlobGas":"0x{header.excess_blob_gas:x}"'
        f',"parentBeaconBlockRoot":"0x{header.parent_beacon_block_root.hex()}"'
        f',"requestsHash":"0x{REQUESTS_HASH.hex()}"'
    )


def _transaction(transaction: Transaction, index: int, place: str, chain_id: int) -> str:
    to = f'"0x{transaction.to.hex()}"' if transaction.to else "null"
    text = (
        f'{{"hash":"0x{transaction.hash.hex()}","type":"0x{transaction.type:x}"'
        f',"nonce":"0x{transaction.nonce:x}","from":"0x{transaction.sender.hex()}","to":{to}'
        f',"value":"0x{transaction.value:x}","gas":"0x{transaction.gas:x}"'
        f',"gasPrice":"0x{transaction.gas_price:x}","input":"0x{transaction.input.hex()}"'
        f',"transactionIndex":"0x{index:x}"{place},"chainId":"0x{chain_id:x}"'
        f',"v":"0x{transaction.v:x}","r":"0x{transaction.r:x}","s":"0x{transaction.s:x}"'
    )
    return text + (_typed(transaction) if transaction.type else "}")


def _typed(transaction: Transaction) -> str:
    """What typed transactions have beyond legacy ones."""
    entries = ",".join(
        [
            f'{{"address":"0x{address.hex()}","storageKeys":['
            + ",".join([f'"0x{key.hex()}"' for key in keys])
            + "]}"
            for address, keys in transaction.access_list
        ]
    )
    text = f',"yParity":"0x{transaction.v:x}","accessList":[{entries}]'
    if transaction.type > 1:
        text += (
            f',"maxFeePerGas":"0x{transaction.max_fee:x}"'
            f',"maxPriorityFeePerGas":"0x{transaction.max_priority_fee:x}"'
        )
    if transaction.type == 3:
        hashes = ",".join([f'"0x{h.hex()}"' for h in transaction.blob_hashes])
        text += f',"maxFeePerBlobGas":"0x{transaction.max_blob_fee:x}"'
        text += f',"blobVersionedHashes":[{hashes}]'
    if transaction.type == 4:
        granted = ",".join(
            [
                f'{{"chainId":"0x{chain:x}","address":"0x{address.hex()}","nonce":"0x{nonce:x}"'
                f',"yParity":"0x{parity:x}","r":"0x{r:x}","s":"0x{s:x}"}}'
                for chain, address, nonce, parity, r, s in transaction.authorizations
            ]
        )
        text += f',"authorizationList":[{granted}]'
    return text + "}"


class _Receipts:
    """The receipts of one block while they are rendered."""

    def __init__(self, block: Block, place: str) -> None:
        self._parts: list[str] = []
        self._at = 1
        self._log_index = 0
        self._blob_gas_price = block.blob_gas_price
        self.spans: list[Span] = []
        self.log_spans: list[Span] = []
        for index, transaction in enumerate(block.transactions):
            where = (
                f'{place},"transactionHash":"0x{transaction.hash.hex()}"'
                f',"transactionIndex":"0x{index:x}"'
            )
            self._add(transaction, where)

    def text(self) -> bytes:
        """The whole list."""
        return f"[{','.join(self._parts)}]".encode()

    def _add(self, transaction: Transaction, where: str) -> None:
        start = self._at
        head = self._head(transaction, where)
        logs = self._logs(transaction, where, start + len(head))
        self._parts.append(f"{head}{logs}]}}")
        stop = start + len(head) + len(logs) + 2
        self.spans.append((start, stop))
        self._at = stop + 1

    def _head(self, transaction: Transaction, where: str) -> str:
        to = f'"0x{transaction.to.hex()}"' if transaction.to else "null"
        created = transaction.contract_address
        contract = f'"0x{created.hex()}"' if created else "null"
        blob = (
            f',"blobGasUsed":"0x{len(transaction.blob_hashes) * BLOB_GAS:x}"'
            f',"blobGasPrice":"0x{self._blob_gas_price:x}"'
            if transaction.type == 3
            else ""
        )
        return (
            f'{{"type":"0x{transaction.type:x}","status":"0x{transaction.status:x}"{where}'
            f',"from":"0x{transaction.sender.hex()}","to":{to},"contractAddress":{contract}'
            f',"cumulativeGasUsed":"0x{transaction.cumulative_gas_used:x}"'
            f',"gasUsed":"0x{transaction.gas_used:x}"'
            f',"effectiveGasPrice":"0x{transaction.gas_price:x}"{blob}'
            f',"logsBloom":"0x{transaction.bloom.hex()}","logs":['
        )

    def _logs(self, transaction: Transaction, where: str, start: int) -> str:
        texts = []
        index = self._log_index
        for log in transaction.logs:
            topics = ",".join([f'"0x{topic.hex()}"' for topic in log.topics])
            text = (
                f'{{"address":"0x{log.address.hex()}","topics":[{topics}]'
                f',"data":"0x{log.data.hex()}"{where},"logIndex":"0x{index:x}","removed":false}}'
            )
            texts.append(text)
            self.log_spans.append((start, start + len(text)))
            start += len(text) + 1
            index += 1
        self._log_index = index
        return ",".join(texts)
