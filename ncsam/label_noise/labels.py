"""Labels as an annotator gave them, beside the true ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ncsam.label_noise.draws import choose_by_ends


class Corruption(NamedTuple):
    """What a kind of label noise makes of true labels.

    Attributes:
        observed: int64 (n,), the labels drawn.
        transition: float64 (classes, classes), if it is the class that decides; row i, column j is the probability
            that a sample of class i is labeled j.
        probabilities: float64 (n, classes), if it is the sample that decides: the chance of each of its labels.
    """

    observed: Tensor
    transition: Tensor | None = None
    probabilities: Tensor | None = None


@dataclass(frozen=True)
class NoisyLabels:
    """Labels as an annotator gave them, and as they truly are.

    Attributes:
        clean: int64 (n,), the true labels.
        observed: int64 (n,), the labels that training sees.
        transition: float64 (classes, classes); row i, column j is the probability that a sample of class i is
            labeled j.
        kind: name of the corruption model.
        rate: share of wrong labels that was asked for, as the kind counts it; the realized one where none was.
        seed: of the draw.
        transition_kind: `"expected"`: the transition is that of the model the labels were drawn from;
            `"empirical"`: the share in these labels, where the model is not one of classes alone.
        probabilities: float64 (n, classes), the chance of each label of each sample, where the model is not one of
            classes alone and is known; None otherwise.
    """

    clean: Tensor
    observed: Tensor
    transition: Tensor
    kind: str
    rate: float
    seed: int
    transition_kind: str = "expected"
    probabilities: Tensor | None = None

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
        chances = self.probabilities
        return replace(
            self,
            clean=self.clean[indices],
            observed=self.observed[indices],
            probabilities=None if chances is None else chances[indices.to(chances.device)],
        )

    def to(self, device: torch.device | str) -> NoisyLabels:
        """The same labels on `device`."""
        return replace(self, clean=self.clean.to(device), observed=self.observed.to(device))

    def redrawn(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Labels of the samples at `indices`, drawn anew from the model of the noise, each sample by itself.

        A sample's label is wrong with the probability that it had in the first draw. The share of wrong labels is
        `rate` on average, while `observed` meets it exactly.

        Args:
            indices: int64 (m,), on the labels' device.
            generator: on the CPU.

        Returns:
            int64 (m,), on the labels' device.

        Raises:
            ValueError: the model of the noise is not known, as with labels that people gave.
        """
        rows = self.clean[indices] if self.probabilities is None else indices
        return choose_by_ends(self._ends[rows], generator)

    @cached_property
    def _ends(self) -> Tensor:
        """Cumulative probabilities of the labels, by class or by sample, on the labels' device."""
        if self.probabilities is not None:
            return self.probabilities.cumsum(1).to(self.clean.device)
        if self.transition_kind != "expected":
            raise ValueError(
                f"redraw: labels of kind {self.kind!r} come from no model that could be drawn from again; take them as "
                'they are, or kind = "matrix" with their transition matrix'
            )
        return self.transition.cumsum(1).to(self.clean.device)


def empirical_transition(clean: Tensor, observed: Tensor, classes: int) -> Tensor:
    """Share of each observed label among the samples of each true class, float64 (classes, classes).

    A class without samples has the row of unchanged labels.
    """
    pairs = (clean * classes + observed).bincount(minlength=classes * classes)
    counts = pairs.view(classes, classes).double().cpu()
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals, torch.eye(classes, dtype=torch.float64))
