"""Sums over vectors as long as the weights, in float64 without a copy of them in float64."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 2**20
"""Entries that are copied to float64 at a time."""


def dot(one: Tensor, other: Tensor) -> float:
    """The inner product of two vectors (n,), summed in float64."""
    pieces = zip(one.split(PIECE), other.split(PIECE), strict=True)
    return float(torch.stack([a.double() @ b.double() for a, b in pieces]).sum())


def norm(vector: Tensor, order: float = 2) -> float:
    """The norm of a vector (n,), summed in float64."""
    norms = [torch.linalg.vector_norm(piece.double(), order) for piece in vector.split(PIECE)]
    return float(torch.linalg.vector_norm(torch.stack(norms), order))
