"""Draws that depend on a seed and a purpose alone: not on what else is drawn with the seed, a dtype, or a device."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

PIECE = 2**16
"""Numbers that are drawn at a time in float64."""


def generator_for(purpose: str, seed: int, *, part: tuple[int, ...] = ()) -> torch.Generator:
    """A generator that starts from a seed and a purpose. It draws on the CPU, so that all devices get the same.

    Scripts give one seed to everything. A generator that starts from the bare seed draws again what others drew with
    it: random directions that are aligned with the initial weights, or samples whose labels were made wrong.

    Args:
        purpose: what is drawn. Different purposes draw independently.
        seed: the caller's seed, any whole number.
        part: numbers of what is drawn, where each part has a generator of its own.
    """
    words = np.random.SeedSequence([seed % 2**64, zlib.crc32(purpose.encode()), *part])
    return torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))


def normal_like(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent standard normal numbers of a shape, in the dtype and on the device of `like`.

    They are drawn in float64 and rounded: torch draws other numbers in another dtype.
    """
    return fill_normal(torch.empty(shape, dtype=like.dtype, device=like.device), generator)


def fill_normal(out: Tensor, generator: torch.Generator) -> Tensor:
    """Fills a contiguous tensor as `normal_like` does, and returns it."""
    for piece in out.view(-1).split(PIECE):
        drawn = torch.randn(len(piece), dtype=torch.float64, device=generator.device, generator=generator)
        # rounded before it moves: not every device has float64
        piece.copy_(drawn.to(piece.dtype))
    return out
