"""SANER: Sharpness-Aware Noise-Explicit Reweighting (Luong et al. 2024, arXiv:2411.17132)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.perturbation import Ascent
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import as_real
from ncsam.methods.training_loss import TrainingLoss


class SANER(SAM):
    """SAM's gradient. Its entries that are smaller than those of the ordinary gradient are damped.

    With r = g_SAM / g entry by entry, entries with 0 < r < 1 are multiplied by 1 - alpha. According to the paper, wrong
    labels dominate these entries. Real and imaginary parts of complex weights are entries of their own.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0.1 in the paper.
        alpha: the share by which the entries are damped, 0 to 1; 0 is SAM.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def __init__(
        self, model: nn.Module, loss_fn: TrainingLoss, *, alpha: float = 0.5, **others: Unpack[SAMOptions]
    ) -> None:
        super().__init__(model, loss_fn, **others)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: the damped share must lie in [0, 1], got {alpha}")
        self.alpha = alpha

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds the reweighted gradient to `.grad`."""
        sharp = self.gradient_at(ascent.perturbation, inputs, targets, indices)
        # 0 < s / g < 1, written without a division: the signs agree, and s is smaller in size
        damped = [
            torch.where((s.sign() == g.sign()) & (s.abs() < g.abs()), (1 - self.alpha) * s, s)
            for s, g in zip(as_real(sharp), as_real(ascent.gradient), strict=True)
        ]
        self.passes.accumulate(
            [
                torch.view_as_complex(part) if whole.is_complex() else part
                for part, whole in zip(damped, sharp, strict=True)
            ]
        )
