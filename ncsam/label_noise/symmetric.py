"""Wrong labels spread evenly over the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ncsam.label_noise.labels import Corruption


def symmetric(clean: Tensor, classes: int, rate: float, generator: torch.Generator) -> Corruption:
    """Exactly `round(rate * n)` samples get a label drawn uniformly from the *other* classes."""
    return Corruption(_spread(clean, classes, rate, generator), _transition(classes, rate))


def symmetric_all(clean: Tensor, classes: int, rate: float, generator: torch.Generator) -> Corruption:
    """A share `rate` of the labels is drawn anew from *all* classes, the true one included.

    The NCSAM authors and many others count in this way. Only the share `rate * (1 - 1 / classes)` of the labels becomes
    wrong; that share is met exactly.
    """
    wrong = rate * (1 - 1 / classes)
    return Corruption(_spread(clean, classes, wrong, generator), _transition(classes, wrong))


def _spread(clean: Tensor, classes: int, wrong: float, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(clean), generator=generator, device="cpu")[: round(wrong * len(clean))]
    shift = torch.randint(1, classes, (len(chosen),), generator=generator, device="cpu")
    observed = clean.clone()
    observed[chosen] = (clean[chosen] + shift) % classes
    return observed


def _transition(classes: int, wrong: float) -> Tensor:
    transition = torch.full((classes, classes), wrong / (classes - 1), dtype=torch.float64, device="cpu")
    return transition.fill_diagonal_(1 - wrong)
