"""Freed memory is kept for the next tensor instead of being handed back to the system."""

from __future__ import annotations

import ctypes
import sys

# The names and numbers of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; whether it was told (glibc alone has these settings).

    A chunk of pictures is a dozen tensors of some 16 MB each, and by default every one of them is given back when it is
    freed and fetched again, page by page, by the next pass: a third of what a forward pass takes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_MMAP_MAX: 0,  # no tensor is too large to be kept
        M_TRIM_THRESHOLD: _LARGEST,
        M_ARENA_MAX: 1,  # an arena of a thread's own is cut into heaps of 64 MB, which are given back one by one
    }
    told = [mallopt(setting, value) for setting, value in settings.items()]  # every one, also where one is refused
    return all(told)
