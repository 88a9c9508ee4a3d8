"""Directions in weight space along which a surface is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.results import FloatArray, described

ONE_DIMENSIONAL = ("zero", "normalize")


@dataclass(frozen=True)
class Directions:
    """Vectors in weight space, and how they were made."""

    vectors: Tensor = described("directions, one a column", dims=("parameter", "direction"))
    cosines: FloatArray = described("cosines between the directions", dims=("direction", "other_direction"))
    kind: str = described("how the directions were made")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters")
    seed: int = described("seed of the draw")


def filter_normalized_directions(
    objective: Objective, count: int = 2, *, seed: int = 0, one_dimensional: str = "zero"
) -> Directions:
    """Random Gaussian directions, filter-normalised (Li et al. 2018, arXiv:1712.09913, section 4).

    Each output filter of a convolution, and each row of a linear layer's weights, is given the norm of the
    corresponding filter of the model: d <- d / ||d|| ||theta||. A filter of zero norm gives zero.

    Args:
        objective: whose weights give the norms.
        count: how many directions.
        seed: of the draw.
        one_dimensional: biases and BatchNorm parameters are left out (`"zero"`, as in Li et al.) or
            normalised as a whole (`"normalize"`).

    Raises:
        ValueError: an argument out of range.
    """
    if count < 1:
        raise ValueError(f"count: must be at least 1, got {count}")
    if one_dimensional not in ONE_DIMENSIONAL:
        raise ValueError(
            f"one_dimensional: must be one of {', '.join(ONE_DIMENSIONAL)}, got {one_dimensional!r}"
        )
    generator = torch.Generator(objective.device).manual_seed(seed)
    weights = objective.unflatten(objective.theta)
    columns = []
    for _ in range(count):
        parts = []
        for weight in weights.values():
            draw = torch.randn(weight.shape, dtype=weight.dtype, device=weight.device, generator=generator)
            parts.append(_normalized(draw, weight, one_dimensional).flatten())
        columns.append(torch.cat(parts))
    vectors = torch.stack(columns, 1)
    return Directions(vectors, _cosines(vectors), "filter-normalized", one_dimensional, seed)


def _normalized(draw: Tensor, weight: Tensor, one_dimensional: str) -> Tensor:
    if weight.ndim < 2:
        if one_dimensional == "zero":
            return torch.zeros_like(draw)
        return draw * (torch.linalg.vector_norm(weight) / torch.linalg.vector_norm(draw))
    own = torch.linalg.vector_norm(draw.flatten(1), dim=1)
    wanted = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return draw * (wanted / own).view(-1, *[1] * (weight.ndim - 1))


def _cosines(vectors: Tensor) -> FloatArray:
    unit = torch.nn.functional.normalize(vectors.double(), dim=0)
    return np.asarray((unit.T @ unit).cpu().numpy(), dtype=np.float64)
