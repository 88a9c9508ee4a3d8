"""Part-dependent label noise: the wrong label depends on what the image looks like."""

from __future__ import annotations

import scipy
import torch
from torch import Tensor

from ncsam.label_noise.draws import (
    choose_each,
    inclusion_probabilities,
    label_probabilities,
    normal,
    sample_of_size,
    uniform,
)
from ncsam.label_noise.labels import Corruption


def part_dependent(
    clean: Tensor,
    classes: int,
    rate: float,
    generator: torch.Generator,
    *,
    inputs: Tensor,
    flip_std: float = 0.1,
) -> Corruption:
    """Instance-dependent noise as Xia et al. 2020 generate it (arXiv:2006.07836, and the code of its authors).

    A sample of class y is flipped with probability q ~ N(rate, flip_std^2), truncated to [0, 1]. The scores of its
    wrong labels are its pixels times a random normal matrix of class y, and the wrong label is drawn from the softmax
    of these scores over the other classes. Here exactly `round(rate * n)` samples are flipped, each with a probability
    in proportion to its q, so that the truncation does not shift the rate.

    Args:
        clean: int64 (n,).
        classes: number of classes.
        rate: mean of q; also the share of wrong labels.
        generator: makes the draw.
        inputs: (n, ...), finite. The authors' code takes the stored bytes, `split.pixels`. The scores then differ so
            much that nearly always the class of the largest score is drawn.
        flip_std: standard deviation of q before it is truncated.

    Raises:
        ValueError: the inputs do not fit the labels or are not finite, or `flip_std` is not above 0.
    """
    if not 0 < flip_std < float("inf"):
        raise ValueError(f"flip_std: must be above 0, got {flip_std}")
    if len(inputs) != len(clean):
        raise ValueError(f"inputs: {len(inputs)} samples for {len(clean)} labels")
    flip_rates = truncated_normal(len(clean), rate, flip_std, generator)
    count = round(rate * len(clean))
    flipped = sample_of_size(flip_rates, count, generator)
    wrong = _wrong_label_weights(clean, classes, inputs, generator)
    observed = torch.where(flipped, choose_each(wrong, generator), clean)
    chances = inclusion_probabilities(flip_rates, count)
    return Corruption(observed, probabilities=label_probabilities(clean, chances, wrong))


def truncated_normal(count: int, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Draws of N(mean, std^2) truncated to [0, 1], float64 (count,)."""
    low, high = (scipy.special.ndtr((bound - mean) / std) for bound in (0, 1))
    levels = low + (high - low) * uniform((count,), generator).numpy()
    # 0 would forbid a flip that is only unlikely
    return (mean + std * torch.from_numpy(scipy.special.ndtri(levels))).clamp(1e-200, 1)


def _wrong_label_weights(clean: Tensor, classes: int, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Probability of each wrong label, given that the label is wrong, float64 (n, classes)."""
    weights = torch.zeros(len(clean), classes, dtype=torch.float64, device="cpu")
    for label in range(classes):
        # a matrix is drawn for every class, so that the draws do not depend on which classes occur
        projection = normal((inputs[0].numel(), classes), generator)
        members = torch.nonzero(clean == label).flatten()
        features = inputs[members.to(inputs.device)].flatten(1).cpu().double()
        if not bool(features.isfinite().all()):
            raise ValueError("inputs: must be finite")
        scores = features @ projection
        scores[:, label] = -float("inf")
        weights[members] = scores.softmax(1)
    return weights
