"""torch's global generators, which one thread at a time borrows. Dropout can draw from no other generator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

LOCK: threading.RLock = torch.random.__dict__.setdefault("_borrowed_by_one_thread", threading.RLock())
"""Held while the global generators are borrowed. `torch.random` keeps the lock, so that `landscape` has the same."""


@contextmanager
def borrowed_generators(device: torch.device | None = None, seed: int | None = None) -> Iterator[None]:
    """Inside the block torch's global generators belong to this thread. At its end their state is restored.

    Threads that borrow the generators wait for each other. A thread that draws without borrowing still
    moves the generators.

    Args:
        device: if the device is a GPU, its generator is borrowed too.
        seed: the generators start from this seed; without a seed they go on from their state.
    """
    cuda = device is not None and device.type == "cuda"
    with LOCK, torch.random.fork_rng(devices=[device] if cuda else []):
        if seed is not None:
            torch.random.default_generator.manual_seed(seed)
            if cuda:
                # the seed of this device, which need not be the current one
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
        yield


@dataclass(frozen=True)
class GeneratorStates:
    """Where torch's global generators stand: the CPU's, and that of a GPU."""

    device: torch.device
    of_cpu: torch.Tensor
    of_device: torch.Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> GeneratorStates:
        """The states now.

        Args:
            device: if it is a GPU, its generator is looked at too.
        """
        of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), of_device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside the block the generators draw again what they drew from here on; then they are as before the block."""
        with borrowed_generators(self.device):
            torch.set_rng_state(self.of_cpu)
            if self.of_device is not None:
                torch.cuda.set_rng_state(self.of_device, self.device)
            yield


def generator_from(seed: int, *numbers: int) -> torch.Generator:
    """A generator on the CPU that starts from a seed and further numbers, such as the number of a step.

    Its draws do not depend on those that others make with the bare seed. A checkpoint need not hold them.
    """
    words = np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))
