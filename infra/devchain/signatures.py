"""Event signatures in, the topic0 hashes and function selectors of the synthetic economy out."""

from ingest.keccak import keccak


def topic(signature: str) -> bytes:
    """Hash of an event's canonical signature: its topic0."""
    return keccak(signature.encode())


def selector(signature: str) -> bytes:
    """First four bytes of a function's signature hash."""
    return keccak(signature.encode())[:4]


TRANSFER = topic("Transfer(address,address,uint256)")
APPROVAL = topic("Approval(address,address,uint256)")
APPROVAL_FOR_ALL = topic("ApprovalForAll(address,address,bool)")
TRANSFER_SINGLE = topic("TransferSingle(address,address,address,uint256,uint256)")
TRANSFER_BATCH = topic("TransferBatch(address,address,address,uint256[],uint256[])")
URI = topic("URI(string,uint256)")
DEPOSIT = topic("Deposit(address,uint256)")
WITHDRAWAL = topic("Withdrawal(address,uint256)")
OWNERSHIP_TRANSFERRED = topic("OwnershipTransferred(address,address)")

SHOUT = topic("Shout(bytes)")
ORDER_FULFILLED = topic("OrderFulfilled(bytes32,address)")

V2_PAIR_CREATED = topic("PairCreated(address,address,address,uint256)")
V2_SWAP = topic("Swap(address,uint256,uint256,uint256,uint256,address)")
V2_SYNC = topic("Sync(uint112,uint112)")
V2_MINT = topic("Mint(address,uint256,uint256)")
V2_BURN = topic("Burn(address,uint256,uint256,address)")

V3_POOL_CREATED = topic("PoolCreated(address,address,uint24,int24,address)")
V3_INITIALIZE = topic("Initialize(uint160,int24)")
V3_SWAP = topic("Swap(address,address,int256,int256,uint160,uint128,int24)")
V3_MINT = topic("Mint(address,address,int24,int24,uint128,uint256,uint256)")
V3_BURN = topic("Burn(address,int24,int24,uint128,uint256,uint256)")
V3_COLLECT = topic("Collect(address,address,int24,int24,uint128,uint128)")

V4_INITIALIZE = topic("Initialize(bytes32,address,address,uint24,int24,address,uint160,int24)")
V4_SWAP = topic("Swap(bytes32,address,int128,int128,uint160,uint128,int24,uint24)")
V4_MODIFY_LIQUIDITY = topic("ModifyLiquidity(bytes32,address,int24,int24,int256,bytes32)")

CALL_TRANSFER = selector("transfer(address,uint256)")
CALL_APPROVE = selector("approve(address,uint256)")
CALL_DEPOSIT = selector("deposit()")
CALL_WITHDRAW = selector("withdraw(uint256)")
CALL_SWAP = selector("swapExactTokensForTokens(uint256,uint256,address[],address,uint256)")
CALL_ADD_LIQUIDITY = selector(
    "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)"
)
CALL_REMOVE_LIQUIDITY = selector(
    "removeLiquidity(address,address,uint256,uint256,uint256,address,uint256)"
)
CALL_EXECUTE = selector("execute(bytes,bytes[],uint256)")
CALL_MINT = selector("mint(address,uint256)")
CALL_SAFE_TRANSFER = selector("safeTransferFrom(address,address,uint256)")
CALL_SAFE_TRANSFER_1155 = selector("safeTransferFrom(address,address,uint256,uint256,bytes)")
CALL_SET_APPROVAL_FOR_ALL = selector("setApprovalForAll(address,bool)")
CALL_DISPERSE = selector("disperseToken(address,address[],uint256[])")
