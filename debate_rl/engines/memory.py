"""Memory: what is freed goes back to the system and the GPU."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys

LARGE = 4 << 20
"""Bytes from which a block is returned as soon as it is freed."""
_MMAP_THRESHOLD = -3
"""Number of this setting of glibc's `mallopt`."""


@functools.cache
def return_large_blocks() -> None:
    """Have the C library (glibc) return large blocks to the system when they are freed, and take them in huge pages.

    By itself it comes to keep blocks of up to 32 MiB. Rows of other lengths do not fit into the gaps, so that a
    training or a long run of the engine holds twice what it uses. Huge pages make up for the time of new blocks.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it with its first block of 2 MiB
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)


def free_memory() -> None:
    """Return the memory of a dropped engine to the system and the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
