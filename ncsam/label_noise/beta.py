"""Label noise with Beta distributed flip probabilities, the NCSAM paper's model."""

from __future__ import annotations

import scipy
import torch
from torch import Tensor

from ncsam.label_noise.draws import (
    choose_each,
    inclusion_probabilities,
    label_probabilities,
    sample_of_size,
    uniform,
)
from ncsam.label_noise.labels import Corruption
from ncsam.label_noise.posterior import among_others, checked_posterior


def beta(
    clean: Tensor,
    classes: int,
    rate: float,
    generator: torch.Generator,
    *,
    concentration: float = 10.0,
    posterior: Tensor | None = None,
) -> Corruption:
    """Flip probabilities p ~ Beta(theta1, theta2) (arXiv:2601.19947, Eq. 1-2) of mean `rate`.

    Exactly `round(rate * n)` samples are flipped, each with a probability in proportion to its p. The paper says
    neither how p depends on the sample nor what the wrong label is. Without a posterior, p is drawn independently of
    the sample, and the wrong label uniformly from the other classes; these labels have the distribution of symmetric
    ones. With a posterior, the samples whose true class is least probable have the largest p, and the wrong label is
    drawn from the posterior over the other classes.

    Args:
        clean: int64 (n,).
        classes: number of classes.
        rate: theta1 / (theta1 + theta2); also the share of wrong labels.
        generator: makes the draw.
        concentration: theta1 + theta2, above 0. The larger it is, the less p differs between samples.
        posterior: (n, classes), class probabilities of a trained classifier.

    Raises:
        ValueError: the concentration is not above 0, or rows of the posterior are not probabilities.
    """
    if not 0 < concentration < float("inf"):
        raise ValueError(f"concentration: must be above 0, got {concentration}")
    levels = uniform((len(clean),), generator)
    # Beta(0, b) has no inverse; with rate 0 the probabilities are not used
    thetas = (max(rate, 1e-6) * concentration, (1 - rate) * concentration)
    drawn = torch.from_numpy(scipy.special.betaincinv(*thetas, levels.numpy()))
    # a probability that underflows to 0 comes last, but the sample can still be flipped
    flip_rates = drawn.clamp(min=1e-200)
    others = torch.ones(len(clean), classes, dtype=torch.float64, device="cpu")
    if posterior is not None:
        # where the classifier rules out all wrong classes, each of them stays possible
        others = checked_posterior(posterior, clean, classes) + 1e-300
        hardness = 1 - others.gather(1, clean.unsqueeze(1)).flatten()
        flip_rates[hardness.argsort(stable=True)] = flip_rates.sort().values.clone()
    count, wrong = round(rate * len(clean)), among_others(others, clean)
    flipped = sample_of_size(flip_rates, count, generator)
    observed = torch.where(flipped, choose_each(wrong, generator), clean)
    chances = inclusion_probabilities(flip_rates, count)
    return Corruption(observed, probabilities=label_probabilities(clean, chances, wrong))
