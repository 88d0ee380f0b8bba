"""A process of large, short-lived buffers in, one that keeps its freed memory for the next out."""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3)."""
KEPT_BYTES = 96 << 20
"""Freed memory that stays with the process."""
MAPPED_FROM_BYTES = 32 << 20
"""Buffers of this size and above are mapped and unmapped on their own; glibc takes no more."""


def settle_allocation() -> None:
    """Set up the process's memory for a long run; call it when all modules are loaded.

    Segments of some MiB are made and dropped all the time. glibc returns such buffers to the
    system and faults in fresh pages for the next; the garbage collector looks through every
    loaded module again and again.
    """
    # What little garbage the imports left stays: to look for it costs more than it holds.
    gc.freeze()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; musl and macOS have none
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_ARENA_MAX, 2)
