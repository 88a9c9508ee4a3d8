"""FriendlySAM (Li et al. 2024, arXiv:2403.12350, Algorithm 1)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.batches import OfBatch
from ncsam.methods.passes import TrainingLoss
from ncsam.methods.sam import SAM
from ncsam.methods.tensor_lists import added, norm, scaled, scaled_to


class FriendlySAM(SAM):
    """SAM along the batch's own part of the gradient: d = g - sigma m, m a moving average of g.

    The average stands for the full gradient. As in the authors' code m is that of the steps before, and the first
    step, which has none, is SAM's.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0.2 in the paper.
        sigma: how much of the average is taken off.
        momentum: lambda, the average's decay: m <- lambda m + (1 - lambda) g.
        warmup: share of the training with ordinary gradients.
        of_batch: `forward` and `count`, see `Method`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho: float,
        sigma: float = 1.0,
        momentum: float = 0.6,
        warmup: float = 0.0,
        **of_batch: Unpack[OfBatch],
    ) -> None:
        super().__init__(model, loss_fn, rho=rho, warmup=warmup, **of_batch)
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma: must be at least 0 and finite, got {sigma}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: must be at least 0 and below 1, got {momentum}")
        self.sigma = sigma
        self.momentum = momentum
        self.average: list[Tensor] | None = None

    def perturbation(self, at_w: list[Tensor]) -> list[Tensor]:
        """rho d / ||d||; moves the average on.

        Raises:
            ValueError: other parameters require a gradient than in the step before.
        """
        before = self.average
        if before is not None and [g.shape for g in before] != [g.shape for g in at_w]:
            raise ValueError(
                "model: other parameters require a gradient than in the steps that the average gradient is of; make a "
                "new FriendlySAM after freezing or unfreezing"
            )
        # a scaler skips the step of a gradient that overflowed, which must not stay in the average either
        if self.passes.scaler is None or torch.isfinite(norm(at_w)):
            self.average = (
                scaled(at_w, 1.0)
                if before is None
                else added(scaled(before, self.momentum), at_w, alpha=1 - self.momentum)
            )
        own = at_w if before is None else added(at_w, before, alpha=-self.sigma)
        return scaled_to(own, self.rho)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: the average too."""
        return {**super().state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a `state_dict()` again."""
        super().load_state_dict(state)
        self.average = state["average"]
