"""Losses and hits of each point from the outputs at several points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from landscape.loss.objective import Objective


def correct(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether each sample is classified correctly: bool (points, samples). Scores with a NaN count as wrong."""
    return (scores.argmax(2) == targets) & ~scores.isnan().any(2)


def mean_losses(objective: Objective, scores: Tensor, targets: Tensor) -> Tensor:
    """The mean loss at each of the points."""
    if len(scores) == 1:
        return objective.loss_fn(scores[0], targets).unsqueeze(0)
    result: Tensor = vmap(objective.loss_fn, in_dims=(0, None))(scores, targets)
    return result


def sample_losses(objective: Objective, mapped: bool, scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample at each of the points, (points, samples), in float64."""

    def of_one(score: Tensor, target: Tensor) -> Tensor:
        return objective.loss_fn(score.unsqueeze(0), target.unsqueeze(0))

    if mapped:
        result: Tensor = vmap(vmap(of_one), in_dims=(0, None))(scores, targets)
        return result.double()
    rows = [torch.stack([of_one(*pair) for pair in zip(point, targets, strict=True)]) for point in scores]
    return torch.stack(rows).double()


def can_be_mapped(objective: Objective, scores: Tensor, targets: Tensor) -> bool:
    """Whether vmap computes the loss of single samples right. Some losses branch on shapes or values."""
    some = scores[:3].unsqueeze(0)
    try:
        with torch.inference_mode():
            mapped = sample_losses(objective, True, some, targets[:3])
            apart = sample_losses(objective, False, some, targets[:3])
    except Exception:
        return False
    return torch.allclose(mapped, apart, rtol=1e-4, equal_nan=True)
