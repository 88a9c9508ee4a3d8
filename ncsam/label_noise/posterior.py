"""Class probabilities of a classifier, from which some kinds of label noise are drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_posterior(posterior: Tensor, clean: Tensor, classes: int) -> Tensor:
    """Class probabilities as float64 (n, classes) on the CPU.

    Raises:
        ValueError: the shape is another, or rows are not probabilities.
    """
    if posterior.shape != (len(clean), classes):
        raise ValueError(
            f"posterior: must be of shape {(len(clean), classes)}, samples x classes, "
            f"got {tuple(posterior.shape)}"
        )
    found = posterior.detach().cpu().double()
    # the rows of a softmax in float16 sum to 1 with an error of some 1e-3
    if not bool((found >= 0).all()) or not bool(((found.sum(1) - 1).abs() < 1e-2).all()):
        raise ValueError("posterior: each row must be probabilities that sum to 1")
    return found


def among_others(posterior: Tensor, clean: Tensor) -> Tensor:
    """The probabilities of the wrong classes, float64 (n, classes); the true class of each sample has 0."""
    return posterior.scatter(
        1, clean.unsqueeze(1), torch.zeros(len(clean), 1, dtype=torch.float64, device="cpu")
    )
