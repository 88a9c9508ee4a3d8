"""FriendlySAM (Li et al. 2024, arXiv:2403.12350, Algorithm 1)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, norm, scaled, scaled_to
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_below_1, check_not_negative


class FriendlySAM(SAM):
    """SAM along the part of the gradient that is special to the batch: d = g - sigma m, with m a moving average of g.

    The average stands for the full gradient. As in the authors' code, m is the average over the steps before. The first
    step has no average and is a step of SAM.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0.2 in the paper.
        sigma: factor of the average that is subtracted.
        momentum: lambda, the average's decay: m <- lambda m + (1 - lambda) g.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        sigma: float = 1.0,
        momentum: float = 0.6,
        **others: Unpack[SAMOptions],
    ) -> None:
        super().__init__(model, loss_fn, **others)
        check_not_negative("sigma", sigma)
        check_below_1("momentum", momentum)
        self.sigma = sigma
        self.momentum = momentum
        self.average: list[Tensor] | None = None

    def perturbation(self, at_w: list[Tensor]) -> list[Tensor]:
        """rho d / ||d||. The call also updates the average.

        Raises:
            ValueError: other parameters require a gradient than in the step before.
        """
        before = self.average
        if before is not None and [g.shape for g in before] != [g.shape for g in at_w]:
            raise ValueError(
                "model: other parameters require a gradient than in the steps that the average gradient is of; make a "
                "new FriendlySAM after freezing or unfreezing"
            )
        # a scaler skips the step of a gradient that overflowed; the average must leave that gradient out too
        if self.passes.scaler is None or torch.isfinite(norm(at_w)):
            self.average = (
                scaled(at_w, 1.0)
                if before is None
                else added(scaled(before, self.momentum), at_w, alpha=1 - self.momentum)
            )
        direction = at_w if before is None else added(at_w, before, alpha=-self.sigma)
        return scaled_to(direction, self.rho)

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the average included."""
        return {**super().state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.average = state["average"]
