"""Labels as an annotator gave them, beside the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ncsam.label_noise.draws import choose_by_ends
from ncsam.options import check_is_tensor


class Corruption(NamedTuple):
    """The labels that a kind of label noise drew, and their probabilities.

    Attributes:
        observed: int64 (n,), the labels drawn.
        transition: float64 (classes, classes), if the class decides: row i, column j is the probability that a sample
            of class i is labeled j.
        probabilities: float64 (n, classes), if the sample decides: the probability of each of its labels.
    """

    observed: Tensor
    transition: Tensor | None = None
    probabilities: Tensor | None = None


@dataclass(frozen=True)
class NoisyLabels:
    """Labels as an annotator gave them, and the true labels.

    A label outside the classes, such as torch's -100, is none: the loss ignores its place.

    Attributes:
        clean: int64 (n,), the true labels; (n, ...), if each sample has labels of several positions.
        observed: int64, of the same shape, the labels that training sees.
        transition: float64 (classes, classes); row i, column j is the probability that a sample of class i is
            labeled j.
        kind: name of the corruption model.
        rate: share of wrong labels that was asked for, as the kind counts it. If none was asked for, the share of
            labels that are wrong.
        seed: seed of the draw.
        transition_kind: `"expected"`: the transition is that of the model from which the labels were drawn.
            `"empirical"`: the class alone does not decide, and the transition holds the shares in these labels.
        probabilities: float64 (n, classes), the probability of each label of each sample. None if the class alone
            decides, or if the model is not known.
        rate_is_asked: whether the rate was asked for.
    """

    clean: Tensor
    observed: Tensor
    transition: Tensor
    kind: str
    rate: float
    seed: int
    transition_kind: str = "expected"
    probabilities: Tensor | None = None
    rate_is_asked: bool = True

    def __post_init__(self) -> None:
        check_is_tensor("clean", self.clean, "(n,)")
        check_is_tensor("observed", self.observed, "(n,)")
        check_is_tensor("transition", self.transition, "(classes, classes)")

    def __repr__(self) -> str:
        wrong, both = int(self.is_wrong.sum()), int(self.has_both.sum())
        return (
            f"NoisyLabels(kind={self.kind!r}, rate={self.rate:.6g}, seed={self.seed}, {len(self.transition)} classes: "
            f"{wrong:,} of {both:,} labels are wrong, realised_rate={self.realised_rate:.6g})"
        )

    @property
    def has_both(self) -> Tensor:
        """bool, of the labels' shape: whether there are both labels."""
        return self.is_label(self.observed) & self.is_label(self.clean)

    @property
    def is_wrong(self) -> Tensor:
        """bool, of the labels' shape: there are both labels, and they differ."""
        return (self.observed != self.clean) & self.has_both

    @property
    def realised_rate(self) -> float:
        """Share of wrong labels where there are both labels; NaN if there are none."""
        return self.is_wrong[self.has_both].double().mean().item()

    def is_label(self, labels: Tensor) -> Tensor:
        """bool, of the shape of `labels`: whether each is one of the classes."""
        return (labels >= 0) & (labels < len(self.transition))

    def take(self, indices: Tensor | Sequence[int]) -> NoisyLabels:
        """The labels of the samples at `indices`, in that order; a mask, a list and a NumPy array do too.

        What was measured on the labels, an empirical transition and a rate that was not asked for, is measured anew.
        """
        chances = self.probabilities
        if chances is not None:
            chances = chances[indices.to(chances.device) if isinstance(indices, Tensor) else indices]
        taken = replace(
            self, clean=self.clean[indices], observed=self.observed[indices], probabilities=chances
        )
        transition, both = self.transition, taken.has_both
        if self.transition_kind == "empirical":
            transition = empirical_transition(taken.clean[both], taken.observed[both], len(transition))
        rate = self.rate if self.rate_is_asked else taken.realised_rate
        return replace(taken, transition=transition, rate=rate)

    def to(self, device: torch.device | str) -> NoisyLabels:
        """The same labels on `device`."""
        return replace(self, clean=self.clean.to(device), observed=self.observed.to(device))

    def redrawn(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the labels of the samples at `indices` anew from the model of the noise, each sample by itself.

        A sample's label is wrong with the probability that it had in the first draw. The share of wrong labels is
        `rate` on average, while `observed` meets it exactly.

        Args:
            indices: int64 (m,), on the labels' device.
            generator: makes the draw, on the CPU.

        Returns:
            int64 (m,) or (m, ...), on the labels' device. Where there is no true label, the observed one stays.

        Raises:
            ValueError: the model of the noise is not known, such as that of labels that people gave.
        """
        if self.probabilities is not None:
            return choose_by_ends(self._ends[indices], generator)
        clean, drawn = self.clean[indices], self.observed[indices].clone()
        is_label = self.is_label(clean)
        drawn[is_label] = choose_by_ends(self._ends[clean[is_label]], generator)
        return drawn

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

    The row of a class without samples says that no label changes.
    """
    pairs = (clean * classes + observed).bincount(minlength=classes * classes)
    counts = pairs.view(classes, classes).double().cpu()
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals, torch.eye(classes, dtype=torch.float64, device="cpu"))
