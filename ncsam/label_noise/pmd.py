"""Polynomial-margin diminishing label noise: samples nearer to a decision boundary are mistaken more often."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ncsam.label_noise.draws import inclusion_probabilities, label_probabilities, sample_of_size
from ncsam.label_noise.labels import Corruption
from ncsam.label_noise.posterior import among_others, checked_posterior

FLIP_RATES: dict[int, Callable[[Tensor], Tensor]] = {
    1: lambda margin: (1 - margin**2) / 2,
    2: lambda margin: 1 - margin**3,
    3: lambda margin: 1 - (margin**3 + margin**2 + margin) / 3,
}
"""Type -> flip rate as a function of the margin between the two most probable classes."""


def pmd(
    clean: Tensor,
    classes: int,
    rate: float,
    generator: torch.Generator,
    *,
    posterior: Tensor,
    pmd_type: int = 1,
) -> Corruption:
    """PMD noise of Zhang et al. 2021 (arXiv:2103.07756), types I to III.

    Let m be the margin between the two most probable classes of a sample. The sample is flipped with a probability in
    proportion to (1 - m^2) / 2, 1 - m^3, or 1 - (m^3 + m^2 + m) / 3. The paper adapts the factor to the noise level;
    here the factor flips exactly `round(rate * n)` samples, and no probability exceeds 1. The wrong label is the most
    probable class other than the true one. For a sample that the classifier gets right that is the second class, as in
    the paper. (The paper first draws the labels anew from the posterior; here they start from the true ones.)

    Args:
        clean: int64 (n,).
        classes: number of classes.
        rate: share of wrong labels.
        generator: makes the draw.
        posterior: (n, classes), class probabilities of a trained classifier.
        pmd_type: 1, 2 or 3.

    Raises:
        ValueError: the type is not 1, 2 or 3, rows of the posterior are not probabilities, or so many samples have the
            margin 1 that the rate is out of reach.
    """
    if pmd_type not in FLIP_RATES:
        raise ValueError(f"pmd_type: must be 1, 2 or 3, got {pmd_type!r}")
    found = checked_posterior(posterior, clean, classes)
    first, second = found.topk(2, dim=1).values.unbind(1)
    flip_rates = FLIP_RATES[pmd_type]((first - second).clamp(0, 1))
    count, possible = round(rate * len(clean)), int((flip_rates > 0).sum())
    if count > possible:
        raise ValueError(
            f"rate: asks for {count} wrong labels where only {possible} samples have a margin below 1"
        )
    flipped = sample_of_size(flip_rates, count, generator)
    wrong = among_others(found, clean).argmax(1)
    chances = inclusion_probabilities(flip_rates, count)
    return Corruption(
        torch.where(flipped, wrong, clean),
        probabilities=label_probabilities(clean, chances, one_hot(wrong, classes).double()),
    )
