"""Criteria of a wrong label, from the dynamics of one training. Larger scores are more suspicious."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ncsam.dynamics import NO_CLASS, TrainingDynamics

EARLY_SHARE = 0.25
"""Share of the epochs that count as early by default: the same as the default of NCSAM's warm-up."""


def small_loss(dynamics: TrainingDynamics) -> Tensor:
    """The mean cross-entropy over the epochs, float64 (n,), in nat.

    Networks learn right labels first, so that their losses are small (Arpit et al. 2017, arXiv:1706.05394; Han et al.
    2018, arXiv:1804.06872, who take the loss of one pass). A label that a network once gave no chance at all has an
    infinite mean.
    """
    return _mean_over_epochs(dynamics.losses)


def area_under_margin(dynamics: TrainingDynamics) -> Tensor:
    """The negative area under the margin: the mean over the epochs of the largest other logit minus the label's logit.

    Pleiss et al. 2020 (arXiv:2001.10528), equation 2. They take the logits within the epoch; here they are of the end
    of each epoch, in evaluation mode. Float64 (n,), in the unit of the logits.
    """
    return -_mean_over_epochs(dynamics.margins)


def forgetting_events(dynamics: TrainingDynamics, labels: Tensor) -> Tensor:
    """How often a sample was predicted as its label at the end of an epoch and not at the end of the next one.

    Toneva et al. 2019 (arXiv:1812.05159), definition 1, once an epoch. A sample that was never predicted as its label
    counts as often as there are epochs, which is more than any other can have. Float64 (n,).

    Epochs without a prediction of the sample are left out: the epochs before and after them follow each other.

    Args:
        dynamics: of a training.
        labels: int64 (n,), the observed ones.
    """
    is_learned, is_known = dynamics.predictions == labels.cpu(), dynamics.predictions != NO_CLASS
    events = torch.zeros(dynamics.samples, dtype=torch.float64, device="cpu")
    was_learned = torch.zeros(dynamics.samples, dtype=torch.bool, device="cpu")
    for learned, known in zip(is_learned, is_known, strict=True):
        events += known & was_learned & ~learned
        was_learned = torch.where(known, learned, was_learned)
    events[~is_learned.any(0)] = dynamics.epochs
    return torch.where(is_known.any(0), events, torch.nan)


def early_learning_disagreement(
    dynamics: TrainingDynamics, labels: Tensor, *, early_share: float = EARLY_SHARE
) -> Tensor:
    """The share of the early epochs in which the network predicts another class than the label.

    Before wrong labels are memorized, the network predicts the true class of many of them (Liu et al. 2020,
    arXiv:2007.00151, section 3). Float64 (n,).

    Args:
        dynamics: of a training.
        labels: int64 (n,), the observed ones.
        early_share: share of the epochs that count as early; at least one epoch does.

    Raises:
        ValueError: a share out of range.
    """
    predictions = early_predictions(dynamics, early_share)
    disagrees = (predictions != labels.cpu()).double()
    is_known = predictions != NO_CLASS
    counted = is_known.sum(0)
    share = (disagrees * is_known).sum(0) / counted
    return torch.where(counted > 0, share, torch.nan)


def early_predictions(dynamics: TrainingDynamics, early_share: float = EARLY_SHARE) -> Tensor:
    """The predictions (early epochs, n).

    Raises:
        ValueError: a share out of range.
    """
    if not 0 < early_share <= 1:
        raise ValueError(f"early_share: must lie above 0 and be at most 1, got {early_share}")
    return dynamics.predictions[: max(1, math.ceil(early_share * dynamics.epochs))].long()


def _mean_over_epochs(values: Tensor) -> Tensor:
    """The mean of each sample's numbers, which may be infinite; NaN for no number, or for infinities of both signs."""
    return values.double().nanmean(0)
