"""Bytes in, Keccak-256 digests out."""

from collections.abc import Callable

import sha3  # type: ignore[import-untyped]

_new: Callable[[bytes], "sha3.keccak_256"] = sha3.keccak_256


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
    digest: bytes = _new(preimage).digest()
    return digest
