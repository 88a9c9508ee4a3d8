"""Controlled label corruption: the observed labels, with the clean ones kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoisyLabels:
    """Labels as an annotator gave them, and as they truly are.

    Attributes:
        clean: int64 (n,), the true labels.
        observed: int64 (n,), the labels that training sees.
        transition: float64 (classes, classes); row i, column j is the probability that a sample of class i is
            labelled j.
        kind: name of the corruption model.
        rate: share of wrong labels that was asked for.
        seed: of the draw.
    """

    clean: Tensor
    observed: Tensor
    transition: Tensor
    kind: str
    rate: float
    seed: int

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


def corrupt_labels(
    targets: Tensor, *, kind: str = "symmetric", rate: float, seed: int, num_classes: int | None = None
) -> NoisyLabels:
    """Replaces a share of the labels by wrong ones.

    `"symmetric"`: exactly `round(rate * n)` samples, drawn uniformly without replacement, get a label drawn
    uniformly from the *other* classes. (Some papers draw from all classes, the true one included: their
    nominal rate r corrupts only r (1 - 1/classes) of the labels.)

    Args:
        targets: int64 (n,), the true labels, counted from 0.
        kind: `"symmetric"`.
        rate: share of labels to make wrong, from 0 to below 1.
        seed: of the draw, which is made on the CPU so that it is the same on every device.
        num_classes: the number of classes; the largest label plus one if not given.

    Raises:
        ValueError: unknown kind, a rate outside [0, 1), or labels outside the classes.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"kind: unknown label noise {kind!r}; known: {', '.join(NOISE_KINDS)}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate: {rate} is not a share of wrong labels; must be at least 0 and below 1")
    if targets.ndim != 1 or targets.dtype != torch.int64 or len(targets) == 0:
        raise ValueError(
            f"targets: must be int64 of shape (n,), got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    classes = int(targets.max()) + 1 if num_classes is None else num_classes
    if targets.min() < 0 or targets.max() >= classes:
        raise ValueError(f"targets: labels must lie in 0..{classes - 1}")
    if classes < 2:
        raise ValueError(f"num_classes: label noise needs at least 2 classes, got {classes}")

    generator = torch.Generator().manual_seed(seed)
    clean = targets.cpu()
    chosen = torch.randperm(len(clean), generator=generator)[: round(rate * len(clean))]
    shift = torch.randint(1, classes, (len(chosen),), generator=generator)
    observed = clean.clone()
    observed[chosen] = (clean[chosen] + shift) % classes

    transition = torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64)
    transition.fill_diagonal_(1 - rate)
    return NoisyLabels(
        targets.clone(), observed.to(targets.device), transition, kind=kind, rate=rate, seed=seed
    )


NOISE_KINDS = ("symmetric",)
