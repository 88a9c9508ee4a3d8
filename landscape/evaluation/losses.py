"""Losses of each sample at several points, and the sums from which means and their errors are computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from landscape.data.batches import Batch, rows_of
from landscape.loss.objective import Objective

SUMS = 9
"""Number of sums over the samples: weight times loss, hits among the labeled, and the seven sums of `error_sums`."""


def mean_losses(objective: Objective, scores: Tensor, targets: Batch) -> Tensor:
    """The mean loss at each of the points."""
    if len(scores) == 1:
        return objective.loss_fn(scores[0], targets).unsqueeze(0)
    result: Tensor = vmap(objective.loss_fn, in_dims=(0, None))(scores, targets)
    return result


def sample_losses(objective: Objective, mapped: bool, scores: Tensor, targets: Batch) -> Tensor:
    """The loss of each sample at each of the points, (points, samples), in float64."""

    def of_one(score: Tensor, target: Batch) -> Tensor:
        return objective.loss_fn(score.unsqueeze(0), tree_map(lambda leaf: leaf.unsqueeze(0), target))

    if mapped:
        result: Tensor = vmap(vmap(of_one), in_dims=(0, None))(scores, targets)
        return result.double()
    rows = [
        torch.stack(
            [
                objective.loss_fn(point[i : i + 1], rows_of(targets, slice(i, i + 1)))
                for i in range(len(point))
            ]
        )
        for point in scores
    ]
    return torch.stack(rows).double()


def can_be_mapped(objective: Objective, scores: Tensor, targets: Batch) -> bool:
    """Whether vmap computes the losses of single samples correctly. Some losses branch on shapes or values."""
    some, few = scores[:3].unsqueeze(0), rows_of(targets, slice(0, 3))
    try:
        with torch.inference_mode():
            mapped = sample_losses(objective, True, some, few)
            apart = sample_losses(objective, False, some, few)
    except Exception:
        return False
    return torch.allclose(mapped, apart, rtol=1e-4, equal_nan=True)


def error_sums(losses: Tensor, weights: Tensor, center: Tensor | None) -> Tensor:
    """The sums from which the standard errors of counted means are computed.

    Args:
        losses: the loss of each sample, (points, samples).
        weights: the weight of each sample, (samples,).
        center: the losses of the model itself, (1, samples). A rise is a loss minus the loss of the model itself.

    Returns:
        (points, 7). With weight w, loss l and rise r, they are the number of samples and the sums of w^2, w^2 l, w^2
        l^2, w r, w^2 r and w^2 r^2. Samples of weight 0 are left out.
    """
    counted = weights > 0
    weights, losses = weights[counted], losses[:, counted]
    rises = torch.zeros_like(losses) if center is None else losses - center[:, counted]
    squares = weights.square()
    ones = torch.ones(len(losses), dtype=torch.float64, device=losses.device)
    return torch.stack(
        [
            ones * len(weights),
            ones * squares.sum(),
            losses @ squares,
            losses.square() @ squares,
            rises @ weights,
            rises @ squares,
            rises.square() @ squares,
        ],
        1,
    )
