"""What can go wrong between an RPC node and a segment: the coded errors of ingest's network side.

HR-2001 … HR-2049 speak of endpoints and their answers, HR-2050 … HR-2099 of the provider pool
and of what a run asked for. Failed proofs of blocks have their own module. `endpoint` is always
the display form of a URL, which never holds a secret.
"""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class EndpointUrlInvalid(Permanent):
    """A URL that cannot be an endpoint."""

    code = "HR-2001"
    what = "{endpoint} is not an endpoint URL"
    why = "{reason}"
    fix = "Give an address that starts with http://, https://, ws:// or wss:// and names a host."


class EndpointUnreachable(Transient):
    """No connection, or one that broke before the answer was complete."""

    code = "HR-2002"
    what = "{endpoint} cannot be reached ({cause})"
    why = "The connection was refused, reset, or the host name did not resolve."
    fix = "Check that the node runs and that the address and port are right."


class EndpointTimeout(Transient):
    """No complete answer in time."""

    code = "HR-2003"
    what = "{endpoint} did not answer {method} within {seconds} s"
    why = "The node is overloaded, or the answer is larger than the line can carry in time."
    fix = "Give more endpoints, or raise request_timeout_seconds."


class ServerFailed(Transient):
    """HTTP 5xx."""

    code = "HR-2004"
    what = "{endpoint} answered {method} with HTTP {status}"
    why = "The server, or a gateway before it, failed."
    fix = "It is asked again, and others in its place; if it lasts, check the node."


class RateLimited(Transient):
    """HTTP 429, or a JSON-RPC error that means the same."""

    code = "HR-2005"
    what = "{endpoint} limits the rate of calls (asked to wait {retry_after_seconds} s)"
    why = "More calls were sent than the plan of this endpoint allows."
    fix = "The rate adapts by itself; for more speed give more endpoints or a larger plan."


class AnswerIsHtml(Transient):
    """A web page where JSON was due."""

    code = "HR-2006"
    what = "{endpoint} answered {method} with an HTML page (HTTP {status})"
    why = "The URL is a web site, or a gateway answered in the node's place."
    fix = "Check that the URL is the JSON-RPC endpoint and not the provider's web page."


class AnswerNotJsonRpc(Transient):
    """A complete answer that is not JSON-RPC."""

    code = "HR-2007"
    what = "{endpoint} did not answer {method} in JSON-RPC (HTTP {status}): {excerpt}"
    why = "Something other than an Ethereum node listens at this URL, or a gateway broke."
    fix = "Check the URL; `curl` it with an eth_chainId call and look at the answer."


class AnswerTruncated(Transient):
    """An answer that ends too early."""

    code = "HR-2008"
    what = "the answer of {endpoint} to {method} was cut off after {size_bytes} bytes"
    why = "The node or a gateway closed the connection while it was sending."
    fix = "It is asked again, and others in its place."


class AnswerTooLarge(Transient):
    """An answer above the bound on one response."""

    code = "HR-2009"
    what = "the answer of {endpoint} to {method} is larger than {limit_bytes} bytes"
    why = "One answer is bounded so that a broken endpoint cannot fill the memory."
    fix = "Fewer calls are asked at once; for one huge block raise response_bytes_max."


class AccessRefused(Permanent):
    """HTTP 401 or 403, or a JSON-RPC error that means the same."""

    code = "HR-2010"
    what = "{endpoint} refuses access (HTTP {status})"
    why = "The key in the URL is missing, wrong, expired, or not allowed to call {method}."
    fix = "Check the key with the provider."


class RequestRefused(Permanent):
    """Another HTTP 4xx."""

    code = "HR-2011"
    what = "{endpoint} refuses {method} with HTTP {status}"
    why = "The path of the URL is wrong, or this server does not take such a request."
    fix = "Check the URL's path."


class BatchRefused(Permanent):
    """A batch that the endpoint does not take, or not as large as this one."""

    code = "HR-2012"
    what = "{endpoint} does not take a batch of {calls} calls"
    why = "Providers bound the number of calls in a batch, or take none."
    fix = "Smaller batches, then single calls, are sent from now on; nothing needs doing."


class ReplyMismatched(Transient):
    """A batch reply whose ids are not those of the calls."""

    code = "HR-2013"
    what = "{endpoint} answered {method} with replies to other calls than were asked"
    why = "Replies are matched to calls by id; {reason}."
    fix = "It is asked again, and others in its place."


class CallFailed(Transient):
    """A JSON-RPC error without a more telling meaning."""

    code = "HR-2014"
    what = "{endpoint} answered {method} with error {rpc_code}: {message}"
    why = "The node could not serve the call."
    fix = "It is asked again, and others in its place; if it lasts, look at the node's log."


class MethodMissing(Permanent):
    """A method that the endpoint does not have."""

    code = "HR-2015"
    what = "{endpoint} does not offer {method}"
    why = "The node, or the provider's plan, lacks this method."
    fix = "Another method is used where there is one; else give an endpoint that offers it."


class CallInvalid(Permanent):
    """Parameters that the endpoint does not accept."""

    code = "HR-2016"
    what = "{endpoint} does not accept the parameters of {method} (error {rpc_code}: {message})"
    why = "The node's dialect of this method differs, or a filter is malformed."
    fix = "Check filters given by hand; else report this with the node's name and version."


class BlockNotServed(Transient):
    """A block that the endpoint does not have (yet, or any more)."""

    code = "HR-2020"
    what = "{endpoint} does not serve block {block}"
    why = "Its head lags, it has pruned the block, or the block was reorganised away."
    fix = "It is asked again, and others in its place."


class ReceiptsNotServed(Transient):
    """A block whose receipts the endpoint does not have."""

    code = "HR-2021"
    what = "{endpoint} serves block {block} without its receipts"
    why = "Receipts are indexed after the block, or they are pruned. Null is never taken for none."
    fix = "It is asked again, and others in its place; a pruned node cannot serve history."


class ReceiptsEmpty(Transient):
    """An empty list of receipts or logs for a block whose header says that there are some."""

    code = "HR-2023"
    what = (
        "{endpoint} answers an empty list for the receipts of block {block}, "
        "which has {transactions} transactions"
    )
    why = "The answer is false: the header's {root} is not that of a block without receipts."
    fix = "Others are asked, and it again: some nodes answer so until receipts are indexed."


class HistoryPruned(Permanent):
    """History that the endpoint no longer keeps."""

    code = "HR-2022"
    what = "{endpoint} does not keep the history of block {block}"
    why = "It is a pruned or snap-synced node, or has expired its old history."
    fix = "Give an endpoint with full history (an archive is not needed), or begin later: --from N."


class RangeTooWide(Transient):
    """A getLogs range that the endpoint wants narrower."""

    code = "HR-2030"
    what = "{endpoint} refuses eth_getLogs for {blocks} blocks at once (error {rpc_code})"
    why = "Providers bound the range, the number of logs, or the bytes of one answer."
    fix = "The range is split as the endpoint says, else halved; nothing needs doing."


class LogsUnservable(Permanent):
    """Logs of one block that no endpoint would answer."""

    code = "HR-2031"
    what = "the logs of block {block} cannot be had with eth_getLogs: {last_error}"
    why = "The range was split down to one block, and this was refused still."
    fix = "Narrow the filter, give another endpoint, or use --source receipts."


class ProvidersExhausted(Transient):
    """Every endpoint was tried, as often as the limits allow."""

    code = "HR-2050"
    what = "no endpoint could serve {wanted} in {attempts} attempts; last: {last_error}"
    why = "Each of {endpoints} failed in turn."
    fix = "What was done is kept: run again to go on, with more endpoints (--rpc) if it lasts."


class ProvidersQuarantined(Permanent):
    """Every endpoint has lied."""

    code = "HR-2051"
    what = "every endpoint is quarantined: {reasons}"
    why = "What they serve does not agree with the block headers, so none of it was stored."
    fix = "Give an honest endpoint with --rpc; nothing that is stored needs repair."


class EndpointsUnusable(Permanent):
    """No endpoint passed the checks at the start."""

    code = "HR-2052"
    what = "none of the endpoints can be used: {reasons}"
    why = "Each was asked for its chain id and its latest block."
    fix = "Correct the URL, or give another endpoint with --rpc."


class ChainIdWrong(Permanent):
    """An endpoint of another chain."""

    code = "HR-2053"
    what = "{endpoint} serves chain {actual}, but {chain} is chain {expected}"
    why = "Blocks of two chains must never meet in one database."
    fix = "Give the endpoint of the chain named by --chain, or name its chain."


class StartBeyondHead(Permanent):
    """--from lies in the future."""

    code = "HR-2054"
    what = "--from {from_block} is beyond the head, which is block {head}"
    why = "A backfill begins at a block that exists."
    fix = "Give --from {head} or lower; left out, it begins at the last final blocks."


class ClockSkewed(Permanent):
    """The local clock and the chain's disagree."""

    code = "HR-2055"
    what = "the local clock is {skew_seconds} s {direction} the time of the latest block"
    why = "The clock is wrong, or the endpoints' head stands still; lag would be shown wrongly."
    fix = "Set the clock (NTP); or check that the node is in sync."


class ChainBroken(Permanent):
    """Two verified segments that do not link."""

    code = "HR-2056"
    what = "block {block} of {endpoint} does not follow block {parent_block} of {parent_endpoint}"
    why = "Each of the two is consistent in itself, and no other endpoint settled which is false."
    fix = "Give one more endpoint that you trust with --rpc and run again; nothing was stored."


class HeadSilent(Transient):
    """No endpoint has given a head for long."""

    code = "HR-2058"
    what = "no endpoint has named a head that counts for {seconds} s; last: {last_error}"
    why = "All endpoints are down, limited or quarantined, or lack a block that is final here."
    fix = "Following goes on by itself when one is back; check the nodes and the network."


class FinalBlockDenied(Permanent):
    """An endpoint has another block, or none, where ours is final."""

    code = "HR-2059"
    what = "{endpoint} {has} block {number}, which is final here; its head is {head}"
    why = "The node is on another branch or chain, was set back, or is not in sync."
    fix = "Its heads are not followed. Check whether the node is in sync, and on the right chain."


class EndpointsBehind(Permanent):
    """No endpoint is as far as the block that is final here."""

    code = "HR-2060"
    what = "the heads of {endpoints} are below block {number}, which is stored as final"
    why = "The nodes are not in sync, were set back, or serve a chain that was reset."
    fix = (
        "Wait until they are in sync, or give another endpoint. If their chain is the true one, "
        "run `headrace rewind --to N` with an N that they have, or use another data directory."
    )


class HeadOld(Permanent):
    """The newest block that any endpoint has is days old."""

    code = "HR-2061"
    what = "the chain's head, block {number}, is {days} day(s) old: it is of {time}"
    why = "The chain has stopped, or the nodes are not in sync with it."
    fix = "Check whether the nodes are in sync; a chain that has ended is indexed as it is."


class ChainIdMalformed(Permanent):
    """An answer to eth_chainId that is no chain id."""

    code = "HR-2062"
    what = "{endpoint} answered eth_chainId with {answer}"
    why = "A chain id is a string of 0x and 1 to 16 hex digits; the node or a gateway is broken."
    fix = "Check the URL, or name another endpoint by --rpc."


class ChainsDiffer(Permanent):
    """Endpoints of different chains, and no chain named."""

    code = "HR-2063"
    what = "the endpoints serve different chains, and no chain is named: {served}"
    why = "Blocks of two chains must never meet in one database."
    fix = "Name the chain by --chain, or leave out the endpoints of the other one."
