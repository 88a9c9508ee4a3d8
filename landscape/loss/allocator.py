"""Keeps freed memory in the process, without which large tensors on the CPU are slow."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4


def tune_allocator() -> bool:
    """Tells glibc to keep freed memory rather than give each large block back to the kernel.

    A product of a convolutional network allocates and frees hundreds of megabytes. By default the kernel hands out and
    clears these pages anew each time, which takes a quarter to a third of the time. After this call the process keeps
    its peak memory until it ends. A library must not decide this for its user, so only the command line calls this
    function. Call it before the first large tensor is made.

    Returns:
        Whether the call took effect; False if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
