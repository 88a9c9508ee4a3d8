"""torch's global generators, which one thread at a time borrows. Some loaders and models can draw from no others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOCK: threading.RLock = torch.random.__dict__.setdefault("_borrowed_by_one_thread", threading.RLock())
"""Held while the global generators are borrowed. `torch.random` keeps the lock, so that `ncsam` has the same."""


@contextmanager
def borrowed_generators(device: torch.device | None = None) -> Iterator[None]:
    """Inside the block torch's global generators belong to this thread. At its end their state is restored.

    Args:
        device: if the device is a GPU, its generator is borrowed beside that of the CPU.
    """
    with (
        LOCK,
        torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []),
    ):
        yield
