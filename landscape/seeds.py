"""Generators whose draws do not depend on what else is drawn with the same seed."""

from __future__ import annotations

import zlib

import numpy as np
import torch

CPU = torch.device("cpu")


def generator_for(
    purpose: str, seed: int, device: torch.device = CPU, *, part: tuple[int, ...] = ()
) -> torch.Generator:
    """A generator that starts from a seed and a purpose.

    Scripts give one seed to everything. A generator that starts from the bare seed draws again what others drew with
    it: random directions that are aligned with the initial weights, or samples whose labels were made wrong.

    Args:
        purpose: what is drawn. Different purposes draw independently.
        seed: the caller's seed, any whole number.
        device: where is drawn.
        part: numbers of what is drawn, where each part has a generator of its own.
    """
    words = np.random.SeedSequence([seed % 2**64, zlib.crc32(purpose.encode()), *part])
    return torch.Generator(device).manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
