"""The scale of a perturbation relative to the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.model.weights import filter_norms

ADAPTIVE = ("none", "elementwise", "filter")


def scale_of(objective: Objective, adaptive: str) -> Tensor | float:
    """The scale T of perturbations T u. A scale relative to the weights makes a measure invariant to rescaling.

    `"none"`: T = 1. `"elementwise"`: T = |theta|. The measure does not change under a rescaling of units that leaves
    the function of a ReLU network as it is. `"filter"`: T is the norm of each weight's output filter or row, and
    |theta| for one-dimensional parameters (Kwon et al. 2021, section 3). The measure does not change when whole layers,
    or filters before BatchNorm, are rescaled.

    Raises:
        ValueError: the choice is unknown.
    """
    if adaptive not in ADAPTIVE:
        raise ValueError(f"adaptive: must be one of {', '.join(ADAPTIVE)}, got {adaptive!r}")
    if adaptive == "none":
        return 1.0
    if adaptive == "elementwise":
        return objective.theta.abs()
    parts = []
    for name, weight in objective.unflatten(objective.theta).items():
        if weight.ndim < 2:
            parts.append(weight.abs().flatten())
            continue
        parts.append(filter_norms(objective.model, name, weight).expand_as(weight).flatten())
    return torch.cat(parts)
