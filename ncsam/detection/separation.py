"""How well a score tells wrong labels from right ones, over all samples and at equal loss."""

from __future__ import annotations

import numpy as np

from ncsam.detection.quality import Booleans, Floats, shares_told_apart

LIKE_LOSSES = 10**0.05
"""Losses within this factor, 12%, count as equal."""
FEWEST_MATCHED = 10
"""Fewest wrong labels with right ones of equal loss."""


def auroc(scores: Floats, is_wrong: Booleans) -> float:
    """The chance that a wrong label has a larger score than a right one. Equal scores count half.

    Args:
        scores: (n,).
        is_wrong: (n,).

    Returns:
        NaN if a score is NaN, or if all labels or none are wrong.
    """
    if is_wrong.all() or not is_wrong.any() or np.isnan(scores).any():
        return float("nan")
    of_wrong, _ = shares_told_apart(scores, is_wrong)
    return float(of_wrong.mean())


def auroc_at_equal_loss(scores: Floats, is_wrong: Booleans, loss: Floats) -> float:
    """The chance that a wrong label has a larger score than a right one of equal loss. Equal scores count half.

    Each wrong label is compared with two right ones: the one with the next lower loss, and the one with the next higher
    loss. So the small differences of loss that are left have opposite signs. A wrong label is left out if one of the
    two losses is not within the factor `LIKE_LOSSES` of its own.

    Args:
        scores: (n,).
        is_wrong: (n,).
        loss: (n,), the loss of each sample.

    Returns:
        NaN if a score or a loss is NaN, or if fewer than `FEWEST_MATCHED` wrong labels have such neighbors.
    """
    if np.isnan(scores).any() or np.isnan(loss).any():
        return float("nan")
    order = np.flatnonzero(~is_wrong)[np.argsort(loss[~is_wrong], kind="stable")]
    places = np.searchsorted(loss[order], loss[is_wrong])
    between = (places > 0) & (places < len(order))
    wrong, places = np.flatnonzero(is_wrong)[between], places[between]
    lower, higher = order[places - 1], order[places]
    alike = (loss[lower] * LIKE_LOSSES >= loss[wrong]) & (loss[wrong] * LIKE_LOSSES >= loss[higher])
    # a loss of exactly 0 is that of a probability that was rounded to 1
    alike &= loss[lower] > 0
    if alike.sum() < FEWEST_MATCHED:
        return float("nan")
    neighbors = np.stack([lower[alike], higher[alike]])
    excess = scores[wrong[alike]] - scores[neighbors]
    return float((np.sign(excess).mean() + 1) / 2)
