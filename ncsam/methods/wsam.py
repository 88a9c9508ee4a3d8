"""WSAM: sharpness as a weighted regularizer (Yue et al. 2023, arXiv:2305.15817)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ncsam.methods.perturbation import Ascent
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, scaled
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_below_1


class WSAM(SAM):
    """The gradient of L(w) + gamma / (1 - gamma) (L(w + eps) - L(w)): g + gamma / (1 - gamma) (g_s - g).

    With gamma = 0 it is the ordinary gradient, with gamma = 1/2 that of SAM. Methods fill `.grad`, so that momentum
    acts on the whole gradient. The paper prefers to keep the sharpness part out of the optimizer's momentum ("weight
    decouple"); its ablation has this coupled form too.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        gamma: weight of the sharpness, at least 0 and below 1; 0.9 in the authors' code.
        others: `rho`, `warmup`, `forward` and `count`, as for `SAM`.

    Raises:
        ValueError: gamma is out of range.
    """

    def __init__(
        self, model: nn.Module, loss_fn: TrainingLoss, *, gamma: float = 0.9, **others: Unpack[SAMOptions]
    ) -> None:
        super().__init__(model, loss_fn, **others)
        check_below_1("gamma", gamma)
        self.gamma = gamma

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds g + gamma / (1 - gamma) (g_s - g) to `.grad`."""
        sharp = self.gradient_at(ascent.perturbation, inputs, targets, indices)
        weight = self.gamma / (1 - self.gamma)
        self.passes.accumulate(added(scaled(ascent.gradient, 1 - weight), sharp, alpha=weight))
