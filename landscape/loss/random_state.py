"""torch's global generators, borrowed by one thread at a time: loaders and models may draw from no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOCK: threading.RLock = torch.random.__dict__.setdefault("_borrowed_by_one_thread", threading.RLock())
"""Held while the global generators are borrowed. It lies with the generators, so that `ncsam` has the same one."""


@contextmanager
def borrowed_generators(device: torch.device | None = None) -> Iterator[None]:
    """Within, torch's global generators belong to this thread; afterward they are as they were.

    Args:
        device: whose generator is borrowed beside the CPU's, if it is a GPU.
    """
    with (
        LOCK,
        torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []),
    ):
        yield
