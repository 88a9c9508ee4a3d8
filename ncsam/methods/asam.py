"""ASAM: adaptive SAM (Kwon et al. 2021, arXiv:2102.11600, Eq. 8 and 9)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import norm, scaled
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_not_negative

NORMALIZATIONS = ("elementwise", "filterwise")


class ASAM(SAM):
    """SAM in a ball that scales with the weights: eps = rho T^2 g / ||T g||.

    As in the authors' code, T = |w| + eta for parameters whose name contains "weight", and T = 1 for the others. With
    `"filterwise"`, the norm of an output filter (of a row, in linear layers) takes the place of |w|.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the scaled ball; the paper has 0.5 for CIFAR-10 and 1.0 for CIFAR-100.
        eta: added to |w|, so that weights near 0 move too; 0.01 in the paper.
        normalization: `"elementwise"` (the paper's choice) or `"filterwise"`.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        eta: float = 0.01,
        normalization: str = "elementwise",
        **others: Unpack[SAMOptions],
    ) -> None:
        super().__init__(model, loss_fn, **others)
        check_not_negative("eta", eta)
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization: must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}"
            )
        self.eta = eta
        self.normalization = normalization

    @torch.no_grad()
    def perturbation(self, at_w: list[Tensor]) -> list[Tensor]:
        """rho T^2 g / ||T g||, and zero where the gradient is zero."""
        named = [(n, p) for n, p in self.passes.module.named_parameters() if p.requires_grad]
        scales = [self._scale(name, weights) for name, weights in named]
        once = list(torch._foreach_mul(scales, at_w))
        total = norm(once)
        factor = torch.where(total == 0, torch.zeros_like(total), self.rho / total)
        return scaled(list(torch._foreach_mul(scales, once)), factor)

    def _scale(self, name: str, weights: Tensor) -> Tensor:
        if "weight" not in name:
            return torch.ones_like(weights)
        if self.normalization == "filterwise" and weights.ndim > 1:
            of_filter = torch.linalg.vector_norm(weights.flatten(1), dim=1)
            return (of_filter + self.eta).view(-1, *[1] * (weights.ndim - 1)).expand_as(weights)
        return weights.abs() + self.eta
