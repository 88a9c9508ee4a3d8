"""Draws with exact counts, from integers and uniform numbers alone.

A CPU generator gives the same integers and uniform numbers on every machine, but not the same normal numbers. So
normal numbers are made from uniform ones by the inverse of the normal distribution.
"""

from __future__ import annotations

import scipy
import torch
from torch import Tensor


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers from 0 to below 1, float64."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, float64."""
    # 0 would become minus infinity; the middle of the first of the 2**53 steps takes its place
    probabilities = uniform(shape, generator).clamp(min=2.0**-54)
    return torch.from_numpy(scipy.special.ndtri(probabilities.numpy()))


def largest_remainder(quotas: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """The whole numbers, int64, that are nearest to `quotas` and have the sum `total` (Hamilton's method).

    Each quota is rounded down, and those with the largest remainders get one more. Chance decides between
    equal remainders.

    Args:
        quotas: float64 (k,), not negative.
        total: sum of the result; the rounded sum of the quotas.
        generator: decides the ties.
    """
    # (1 - 0.9) * 10 falls short of 1 by a rounding error; neither floors nor ties may depend on such errors
    quotas = (quotas * 2**32).round() / 2**32
    counts = quotas.floor()
    order = torch.randperm(len(quotas), generator=generator, device="cpu")
    order = order[(quotas - counts)[order].argsort(descending=True, stable=True)]
    counts[order[: total - int(counts.sum())]] += 1
    return counts.long()


def relabel_by_matrix(clean: Tensor, transition: Tensor, generator: torch.Generator) -> Tensor:
    """Labels drawn by a transition matrix. Their counts are those that the matrix expects, up to rounding.

    The number of wrong labels in all is the expected number, rounded. `largest_remainder` divides it among the classes,
    and within a class among the wrong labels. The samples that get them are drawn.

    Args:
        clean: int64 (n,).
        transition: float64 (classes, classes).
        generator: of the draw.
    """
    classes = len(transition)
    wrong = transition.clone().fill_diagonal_(0)
    expected = clean.bincount(minlength=classes).double() * wrong.sum(1)
    counts = largest_remainder(expected, round(float(expected.sum())), generator)
    observed = clean.clone()
    for label in torch.nonzero(counts).flatten().tolist():
        count = int(counts[label])
        members = torch.nonzero(clean == label).flatten()
        chosen = members[torch.randperm(len(members), generator=generator, device="cpu")[:count]]
        quotas = count * wrong[label] / wrong[label].sum()
        observed[chosen] = torch.arange(classes, device="cpu").repeat_interleave(
            largest_remainder(quotas, count, generator)
        )
    return observed


def sample_of_size(weights: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draws a sample of exactly `size` members, each with a probability in proportion to its weight.

    The probabilities are min(1, k weight), with k such that their sum is `size`. Systematic sampling in random order
    (Madow 1949) keeps each probability exactly.

    Args:
        weights: float64 (n,), not negative.
        size: number of members; at most the number of positive weights.
        generator: of the draw.

    Returns:
        bool (n,), True for the members of the sample.
    """
    order = torch.randperm(len(weights), generator=generator, device="cpu")
    ends = inclusion_probabilities(weights, size)[order].cumsum(0)
    # the sum is a whole number but for rounding errors
    ends[-1] = size
    steps = (
        torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), ends]) + uniform((), generator)
    ).floor()
    chosen = torch.empty(len(weights), dtype=torch.bool, device="cpu")
    chosen[order] = steps.diff() > 0
    return chosen


def inclusion_probabilities(weights: Tensor, size: int) -> Tensor:
    """min(1, k weight), float64 (n,), with k such that the sum is `size`."""
    if size == 0:
        return torch.zeros_like(weights)
    descending = weights.sort(descending=True).values
    certain = torch.arange(len(weights), device="cpu")
    # the factor k, if the `certain` largest weights have probability 1; the first k that leaves the next one below 1 is
    # the right one
    rest = descending.flip(0).cumsum(0).flip(0)
    factors = (size - certain) / rest
    first = int((factors * descending <= 1 + 1e-12).int().argmax())
    return (weights * factors[first]).clamp(max=1)


def choose_each(weights: Tensor, generator: torch.Generator) -> Tensor:
    """For each row of `weights`, float64 (n, k), a column drawn in proportion to them: int64 (n,)."""
    return choose_by_ends(weights.cumsum(1), generator)


def choose_by_ends(ends: Tensor, generator: torch.Generator) -> Tensor:
    """As `choose_each`, from cumulative sums of the weights, float64 (n, k), on any device; drawn on the CPU."""
    levels = uniform((len(ends), 1), generator).to(ends.device, non_blocking=True) * ends[:, -1:]
    return (ends <= levels).sum(1)


def label_probabilities(clean: Tensor, flip_rates: Tensor, wrong_labels: Tensor) -> Tensor:
    """The chance of each label of each sample, float64 (n, classes).

    Args:
        clean: int64 (n,).
        flip_rates: float64 (n,), the chance that the sample's label is wrong.
        wrong_labels: float64 (n, classes), weights of the labels that the sample then gets; 0 for the true label.
    """
    wrong = wrong_labels / wrong_labels.sum(1, keepdim=True)
    return (flip_rates.unsqueeze(1) * wrong).scatter(1, clean.unsqueeze(1), (1 - flip_rates).unsqueeze(1))
