"""What glibc does with freed memory: it is kept, for speed, or given back to the kernel where memory is scarce."""

from __future__ import annotations

import ctypes
import sys
from threading import Event

from torch import Tensor

LARGE = 10 * 2**20
"""Bytes of weights or data below which nothing is given back: that takes milliseconds, as a small model's gradient."""

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4

_keeps_freed_memory = Event()


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
    took_effect = all(mallopt(parameter, value) == 1 for parameter, value in settings)
    if took_effect:
        _keeps_freed_memory.set()
    return took_effect


def give_back_freed_memory(weights: Tensor) -> None:
    """Gives memory that was freed back to the kernel, if the weights, or data, are large and on the CPU.

    Gradients and products of a layer are freed one after the other, between others that stay. glibc keeps such gaps:
    after some products as much memory as the weights take. The call changes no setting. After `tune_allocator`, which
    asks for the opposite, nothing is given back.
    """
    is_large = weights.device.type == "cpu" and weights.numel() * weights.itemsize >= LARGE
    if is_large and sys.platform.startswith("linux") and not _keeps_freed_memory.is_set():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
