"""BSAM: bilateral SAM (Deng, Pang et al. 2024, arXiv:2409.13173).

The Bayesian SAM of Möllenhoff and Khan (2023) has the same abbreviation, but is another method.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ncsam.methods.perturbation import Ascent, check_radius
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, norm, ratio, scaled, scaled_to
from ncsam.methods.training_loss import TrainingLoss


class BSAM(SAM):
    """Flattens the loss uphill and downhill: g_max + g - (||g_max|| / ||g_min||) g_min.

    g_max is the gradient at w + rho g / ||g||, and g_min the gradient at w - rho_min g / ||g||. A step costs three
    gradients.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius uphill, l2. 0 is the ordinary gradient, whatever rho_min is.
        rho_min: radius downhill; None: that of `rho` in each step, also where a schedule moves it.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho_min: float | None = None,
        **others: Unpack[SAMOptions],
    ) -> None:
        super().__init__(model, loss_fn, **others)
        self.rho_min = rho_min

    @property
    def rho_min(self) -> float:
        """The radius downhill now."""
        return self.rho if self._rho_min is None else self._rho_min

    @rho_min.setter
    def rho_min(self, radius: float | None) -> None:
        if radius is not None:
            check_radius(radius, "rho_min")
        self._rho_min = radius

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds the bilateral gradient to `.grad`."""
        uphill = self.gradient_at(ascent.perturbation, inputs, targets, indices)
        below = scaled_to(ascent.gradient, -self.rho_min)
        downhill = self.gradient_at(below, inputs, targets, indices)
        both = added(uphill, ascent.gradient)
        share = ratio(norm(uphill), norm(downhill))
        self.passes.accumulate(added(both, scaled(downhill, share), alpha=-1.0))
