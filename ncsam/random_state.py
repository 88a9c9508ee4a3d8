"""torch's global generators, borrowed by one thread at a time: Dropout and others can draw from no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOCK: threading.RLock = torch.random.__dict__.setdefault("_borrowed_by_one_thread", threading.RLock())
"""Held while the global generators are borrowed. It lies with the generators, so that `landscape` has the same one."""


@contextmanager
def borrowed_generators(device: torch.device | None = None, seed: int | None = None) -> Iterator[None]:
    """Within, torch's global generators belong to this thread; afterward they are as they were.

    Threads that borrow them wait for each other. A thread that draws from them without borrowing them still
    moves them.

    Args:
        device: whose generator is borrowed beside the CPU's, if it is a GPU.
        seed: that the generators start from; where they are, if not given.
    """
    cuda = device is not None and device.type == "cuda"
    with LOCK, torch.random.fork_rng(devices=[device] if cuda else []):
        if seed is not None:
            torch.random.default_generator.manual_seed(seed)
            if cuda:
                # of this device, which need not be the current one
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
        yield
