"""GSAM: surrogate-gap guided SAM (Zhuang et al. 2022, arXiv:2203.08065, Algorithm 1)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ncsam.methods.perturbation import Ascent
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, inner_product, ratio, scaled
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_not_negative


class GSAM(SAM):
    """Descends along g_SAM minus alpha times the part of g that is orthogonal to g_SAM.

    The orthogonal part lowers the surrogate gap L(w + eps) - L(w) without changing the perturbed loss. The paper lets
    rho follow the learning rate; set `method.rho` at each epoch for that.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.
        alpha: weight of the orthogonal part.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def __init__(
        self, model: nn.Module, loss_fn: TrainingLoss, *, alpha: float = 0.4, **others: Unpack[SAMOptions]
    ) -> None:
        super().__init__(model, loss_fn, **others)
        check_not_negative("alpha", alpha)
        self.alpha = alpha

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds g_SAM - alpha (g - <g, g_SAM> g_SAM / ||g_SAM||^2) to `.grad`."""
        sharp = self.gradient_at(ascent.perturbation, inputs, targets, indices)
        along = ratio(inner_product(ascent.gradient, sharp), inner_product(sharp, sharp))
        orthogonal = added(ascent.gradient, scaled(sharp, along), alpha=-1.0)
        self.passes.accumulate(added(sharp, orthogonal, alpha=-self.alpha))
