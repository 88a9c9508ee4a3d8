"""Mixup: training on mixtures of two samples and of their labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ncsam.mixture_draw import share_and_partner
from ncsam.options import check_positive
from ncsam.plain_numbers import with_plain_numbers


@with_plain_numbers
def mixup(
    inputs: Tensor, targets: Tensor, *, classes: int, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes each sample with another one of the batch (Zhang et al. 2018, arXiv:1710.09412, section 2).

    lambda ~ Beta(alpha, alpha) is drawn once a batch, as in the authors' code. Cross-entropy with the mixed targets is
    the mixture of the cross-entropies.

    Args:
        inputs: (batch, ...).
        targets: int64 (batch,).
        classes: number of classes.
        alpha: parameter of the Beta distribution; in the paper 1 for CIFAR, and 8 in its tests under label noise.
        generator: makes the draws, on the CPU.

    Returns:
        Mixed inputs, and class probabilities (batch, classes) in the inputs' dtype.
    """
    check_positive("alpha", alpha)
    share, partner = share_and_partner("mixup", inputs, alpha, generator)
    classes_of = one_hot(targets, classes).to(inputs.dtype)
    return (
        share * inputs + (1 - share) * inputs[partner],
        share * classes_of + (1 - share) * classes_of[partner],
    )
