"""What the size of a perturbation is relative to."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.objective import Objective

ADAPTIVE = ("none", "elementwise", "filter")


def scale_of(objective: Objective, adaptive: str) -> Tensor | float:
    """T, by which perturbations T u are scaled: relative to the weights they do not change when these are rescaled.

    `"elementwise"`: |theta|, invariant to every rescaling of units that leaves a ReLU network's function as it is.
    `"filter"`: for each weight the norm of its output filter or row, |theta| for one-dimensional parameters
    (Kwon et al. 2021, section 3); invariant to rescaling of whole layers, and of filters before BatchNorm.

    Raises:
        ValueError: unknown choice.
    """
    if adaptive not in ADAPTIVE:
        raise ValueError(f"adaptive: must be one of {', '.join(ADAPTIVE)}, got {adaptive!r}")
    if adaptive == "none":
        return 1.0
    if adaptive == "elementwise":
        return objective.theta.abs()
    parts = []
    for weight in objective.unflatten(objective.theta).values():
        if weight.ndim < 2:
            parts.append(weight.abs().flatten())
            continue
        norms = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        parts.append(norms.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight).flatten())
    return torch.cat(parts)
