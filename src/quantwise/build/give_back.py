"""Freed memory goes back to the system, so that a walk's peak is what it needs and not what its history left in pieces.

glibc keeps freed blocks on its heap, raises the size from which blocks live outside of it to 32 MiB as it sees larger
ones freed, and a heap of tensors of many sizes falls into pieces: without this, a walk held twice what it used
(malloc_trim(3), mallopt(3)). Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

# Blocks from this size on go back as soon as they are freed. Smaller ones are worth keeping: fresh pages cost more
# than a pass over them.
_OWN_PAGES_FROM = 8 << 20
_M_MMAP_THRESHOLD = -3


def settle() -> None:
    """Fix the size from which tensors live outside of the heap, for the rest of the process."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_FROM)


def give_back() -> None:
    """Return to the system what is free on the heap."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
    except (OSError, TypeError):
        return None
