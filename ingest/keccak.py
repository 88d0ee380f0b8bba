"""Bytes in, Keccak-256 digests out."""

import sha3


def keccak(preimage: bytes) -> bytes:
    """Hash with the original Keccak-256, which Ethereum uses, not NIST's SHA3-256.

    Parameters
    ----------
    preimage : bytes

    Returns
    -------
    bytes
        32 bytes.
    """
    digest: bytes = sha3.keccak_256(preimage).digest()
    return digest
