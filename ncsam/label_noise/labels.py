"""Labels as an annotator gave them, beside the true ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

MAX_CLASSES = 100_000
"""No set has more; a larger label is taken for a slip, as a model with that many outputs would be built."""


def check_classes(largest: int, where: str) -> None:
    """Checks that the largest label of a set is one of a class.

    Raises:
        ValueError: it is beyond `MAX_CLASSES`.
    """
    if largest >= MAX_CLASSES:
        raise ValueError(
            f"{where} holds the label {largest}; labels are counted from 0 and lie below {MAX_CLASSES:,}: "
            "number the classes anew"
        )


@dataclass(frozen=True)
class NoisyLabels:
    """Labels as an annotator gave them, and as they truly are.

    Attributes:
        clean: int64 (n,), the true labels.
        observed: int64 (n,), the labels that training sees.
        transition: float64 (classes, classes); row i, column j is the probability that a sample of class i is
            labelled j.
        kind: name of the corruption model.
        rate: share of wrong labels that was asked for, as the kind counts it; the realised one where none was.
        seed: of the draw.
        transition_kind: `"expected"`: the transition is that of the model the labels were drawn from;
            `"empirical"`: the share in these labels, where the model is not one of classes alone.
    """

    clean: Tensor
    observed: Tensor
    transition: Tensor
    kind: str
    rate: float
    seed: int
    transition_kind: str = "expected"

    @property
    def is_wrong(self) -> Tensor:
        """bool (n,): the observed label differs from the true one."""
        return self.observed != self.clean

    @property
    def realised_rate(self) -> float:
        """Share of the samples whose observed label is wrong."""
        return self.is_wrong.double().mean().item()

    def take(self, indices: Tensor) -> NoisyLabels:
        """The labels of the samples at `indices`, in that order."""
        return replace(self, clean=self.clean[indices], observed=self.observed[indices])

    def to(self, device: torch.device | str) -> NoisyLabels:
        """The same labels on `device`."""
        return replace(self, clean=self.clean.to(device), observed=self.observed.to(device))


def empirical_transition(clean: Tensor, observed: Tensor, classes: int) -> Tensor:
    """Share of each observed label among the samples of each true class, float64 (classes, classes).

    The row of a class without samples is that of labels never changed.
    """
    pairs = (clean * classes + observed).bincount(minlength=classes * classes)
    counts = pairs.view(classes, classes).double().cpu()
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals, torch.eye(classes, dtype=torch.float64))
