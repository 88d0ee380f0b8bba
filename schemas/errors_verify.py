"""Failures of reading and proving what a node sent: HR-22xx.

All are Permanent: the same answer fails again. Another endpoint is asked if one is configured, and
nothing of this answer is published.
"""

from __future__ import annotations

from schemas.errors import Permanent

_ASK_ANOTHER = (
    "Nothing of this answer is stored. Other endpoints are asked; "
    "if this is the only one, add a second by --rpc."
)
_OR_LOWER = f"{_ASK_ANOTHER} If all agree, this chain needs a lower --verify level."


class AnswerRefused(Permanent):
    """An answer that could not be read or proven; `data["endpoint"]`, where given, served it."""

    @property
    def what_text(self) -> str:
        """What happened, behind the endpoint's name where it is known."""
        endpoint = self.data.get("endpoint")
        return super().what_text if endpoint is None else f"{endpoint}: {super().what_text}"


class PayloadInvalid(AnswerRefused):
    """JSON that is not of the shape that the method promises."""

    code = "HR-2200"
    what = "the answer is not what {method} promises: {reason}"
    why = "A field is missing or of another type, or the answer is not JSON at all."
    fix = _ASK_ANOTHER


class HexMalformed(AnswerRefused):
    """A value that is not the hex that its field asks for."""

    code = "HR-2201"
    what = "block {number} ({hash}): {field} is not {wanted}: {value}"
    why = "The node sent hex of another width, with odd digits, without 0x, or no hex at all."
    fix = _ASK_ANOTHER


class QuantityOutOfRange(AnswerRefused):
    """A number that does not fit its column."""

    code = "HR-2202"
    what = "block {number} ({hash}): {field} is {value}, beyond {kind}"
    why = "No chain that this version knows has such a value; narrowing it would be silent loss."
    fix = "If another provider agrees, report it: the column must be widened."


class FieldMissing(AnswerRefused):
    """A field without which the row cannot be stored."""

    code = "HR-2203"
    what = "block {number} ({hash}): {field} is missing"
    why = "The node left it out, or gave transaction hashes where transactions were asked for."
    fix = _ASK_ANOTHER


class TopicsTooMany(AnswerRefused):
    """A log with more than four topics."""

    code = "HR-2204"
    what = "block {number} ({hash}): a log has {topics} topics"
    why = "The EVM has LOG0 to LOG4, so no log has more than four."
    fix = _ASK_ANOTHER


class BlockHashMismatch(AnswerRefused):
    """keccak(rlp(header)) is another hash than the node says."""

    code = "HR-2210"
    what = "block {number}: the header hashes to {computed}, not to {hash}"
    why = "A header field was altered, or the chain encodes its headers by rules of its own."
    fix = "Other endpoints are asked. If all agree, `--verify off` stores the chain unproven."


class UnknownHeaderFields(AnswerRefused):
    """A header that this version cannot encode."""

    code = "HR-2211"
    what = "block {number} ({hash}): header has fields unknown to this version: {fields}"
    why = "The hash covers them in an order that this version does not know, so it is not provable."
    fix = "Upgrade Headrace; until then `--verify off` stores the chain unproven."


class ParentMismatch(AnswerRefused):
    """Neighbouring blocks that are not linked."""

    code = "HR-2212"
    what = "block {number} ({hash}) names the parent {parent}, but block {before} is {expected}"
    why = "The two are of different branches: a reorg between two calls, or two providers."
    fix = "Both are fetched again."


class BlockNumberGap(AnswerRefused):
    """Blocks of a segment that do not follow one another."""

    code = "HR-2213"
    what = "block {number} ({hash}) stands where block {expected} was due"
    why = "The node answered with another block than was asked for."
    fix = _ASK_ANOTHER


class HeaderNotProvable(AnswerRefused):
    """A header without a field that is needed to compute its hash."""

    code = "HR-2214"
    what = "block {number} ({hash}): the header's {field} is {value}, so it cannot be hashed"
    why = "The chain's headers are of another form than Ethereum's, or the node altered this one."
    fix = (
        "Other endpoints are asked. If all agree, `--verify off` stores the chain unproven: the "
        "column is then null and `extra` keeps the text."
    )


class ReceiptsRootMismatch(AnswerRefused):
    """Receipts and logs that are not those of the header."""

    code = "HR-2220"
    what = "block {number} ({hash}): receipts have the root {computed}, the header says {expected}"
    why = "A receipt or a log was altered, left out, doubled or moved."
    fix = "Another provider is asked. If all agree, this chain needs a lower --verify level."


class ReceiptsNotProvable(AnswerRefused):
    """Receipts of types whose encoding this version does not know, and another root."""

    code = "HR-2225"
    what = (
        "block {number} ({hash}): receiptsRoot cannot be rebuilt with transactions of the types "
        "{types}, which this version does not know"
    )
    why = "Such receipts are encoded otherwise than Ethereum's, or the node altered something."
    fix = "Other endpoints are asked. If all agree, `--verify header` takes the chain."


class TransactionsRootMismatch(AnswerRefused):
    """Transactions that are not those of the header."""

    code = "HR-2221"
    what = (
        "block {number} ({hash}): transactions have the root {computed}, the header says {expected}"
    )
    why = "A transaction was altered, left out, doubled or moved."
    fix = "Another provider is asked. If all agree, this chain needs a lower --verify level."


class TransactionHashMismatch(AnswerRefused):
    """A transaction whose hash is not its own."""

    code = "HR-2222"
    what = "block {number} ({hash}): transaction {index} hashes to {computed}, not to {given}"
    why = "The node altered the hash, or a field of the transaction."
    fix = _ASK_ANOTHER


class WithdrawalsRootMismatch(AnswerRefused):
    """Withdrawals that are not those of the header."""

    code = "HR-2223"
    what = (
        "block {number} ({hash}): withdrawals have the root {computed}, the header says {expected}"
    )
    why = "A withdrawal was altered, left out, doubled or moved."
    fix = "Another provider is asked. If all agree, the chain's entry in chains.toml is wrong."


class BloomMismatch(AnswerRefused):
    """A logs bloom that is not that of the logs."""

    code = "HR-2224"
    what = "block {number} ({hash}): the logs bloom of {owner} does not agree with its logs"
    why = "A bloom or a log was altered, or a log is not of this block."
    fix = _OR_LOWER


class ReceiptsOfAnotherBlock(AnswerRefused):
    """Receipts that name another block."""

    code = "HR-2230"
    what = "block {number} ({hash}): the receipts are of block {found}"
    why = "A reorg between two calls, or a provider whose nodes are not in step."
    fix = "Block and receipts are fetched again."


class ReceiptsCountMismatch(AnswerRefused):
    """More or fewer receipts than transactions."""

    code = "HR-2231"
    what = "block {number} ({hash}): {receipts} receipts for {transactions} transactions"
    why = "The list of receipts was truncated, or holds some twice."
    fix = _OR_LOWER


class ReceiptMisplaced(AnswerRefused):
    """A receipt that does not say what its transaction says."""

    code = "HR-2232"
    what = "block {number} ({hash}): {field} of receipt {index} is {found}, not {expected}"
    why = "The receipts are in another order, or one was altered."
    fix = _ASK_ANOTHER


class LogMisplaced(AnswerRefused):
    """A log that names another block or transaction than the one it came with."""

    code = "HR-2233"
    what = "block {number} ({hash}): log {position} has {field} {found}, not {expected}"
    why = "Where a log stands is not covered by receiptsRoot, so a node could lie about it."
    fix = _ASK_ANOTHER


class LogIndexGap(AnswerRefused):
    """Log indexes that are not 0…n-1."""

    code = "HR-2234"
    what = "block {number} ({hash}): log {position} has the index {found}, not {expected}"
    why = "A log was left out, doubled or moved."
    fix = _ASK_ANOTHER


class LogRemoved(AnswerRefused):
    """A log that the node marks as removed by a reorg."""

    code = "HR-2235"
    what = "block {number} ({hash}): log {position} is marked as removed"
    why = "The node had left this block's branch when it answered."
    fix = "Block and logs are fetched again."


class GasMismatch(AnswerRefused):
    """Gas used that does not add up."""

    code = "HR-2236"
    what = "block {number} ({hash}): {field} of receipt {index} is {found}, not {expected}"
    why = "Gas used is the step of cumulative gas, which ends at the header's gas used."
    fix = _OR_LOWER


class TransactionMisplaced(AnswerRefused):
    """A transaction that names another place than the one it came at."""

    code = "HR-2237"
    what = "block {number} ({hash}): transaction {index} has {field} {found}, not {expected}"
    why = "The transactions are in another order, or of another block."
    fix = _ASK_ANOTHER


class SystemReceipt(AnswerRefused):
    """A receipt of the block itself, where the chain's facts name none."""

    code = "HR-2239"
    what = "block {number} ({hash}): the last receipt is of no transaction but of the block itself"
    why = "Some chains log in the name of the block (Celo). This one is not known to do it."
    fix = (
        "Other endpoints are asked. If all agree, `--verify off` stores its logs, with a null "
        "transaction_index."
    )


class LogOutsideFilter(AnswerRefused):
    """A log that was not asked for."""

    code = "HR-2240"
    what = "block {number} ({hash}): log {found} is outside the filter that was asked for"
    why = "The provider ignored the filter, or answered another call."
    fix = _ASK_ANOTHER


class LogOfUnknownBlock(AnswerRefused):
    """A log of a block that was not asked for, or of another branch."""

    code = "HR-2241"
    what = "a log names block {number} ({hash}), which is not among the headers asked for"
    why = "A reorg between two calls, or a provider that ignores the range."
    fix = "Headers and logs are fetched again."


class LogsMissing(Permanent):
    """Fewer logs than the header's bloom speaks of, where all were asked for."""

    code = "HR-2242"
    what = "block {number} ({hash}): logsBloom names more than the {found} logs of the answer do"
    why = "The node cut its answer without saying so, or left logs out."
    fix = (
        "Fewer blocks are asked for at a time, and other providers; nothing of this answer is "
        "stored. If all agree, name another provider, or use `--source receipts`."
    )


class DerivedMismatch(Permanent):
    """A field that does not follow from the proven ones as it must."""

    code = "HR-2238"
    what = (
        "block {number} ({hash}): {field} of transaction {index} is {found}, but {expected} "
        "follows from {source}"
    )
    why = "No root covers this field, but what the roots do cover leaves it only one value."
    fix = _OR_LOWER
