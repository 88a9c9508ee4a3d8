"""The samples of a batch that get temporary labels, and these labels (Eq. 16 to 18 of arXiv:2601.19947 v3)."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_gaps(logits: Tensor) -> Tensor:
    """Eq. 16: the largest logit minus the second largest. (batch, classes) -> (batch,)."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def draw_probabilities(gaps: Tensor) -> Tensor:
    """Eq. 17: q_i = 1 / (1 + gap_i), normalized over the batch. (batch,) -> (batch,)."""
    weights = (1 + gaps).reciprocal()
    return weights / weights.sum()


def draw_without_replacement(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different positions, drawn one after another with the given probabilities.

    The positions are those with the largest log p_i + Gumbel noise. They have the same distribution as positions drawn
    one by one without replacement. The draw needs no synchronization, and does not fail if probabilities are NaN.
    """
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities.log() - noise.log()).topk(count).indices


def temporary_labels(logits: Tensor, observed: Tensor) -> Tensor:
    """Eq. 18: the class of the largest logit other than the observed label's. -> int64 (batch,)."""
    return logits.scatter(1, observed.unsqueeze(1), float("-inf")).argmax(1)


def uniform_other_labels(observed: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A class drawn uniformly from those other than the observed label's. -> int64 (batch,)."""
    shift = torch.randint(1, classes, observed.shape, generator=generator, device=observed.device)
    return (observed + shift) % classes
