"""FriendlySAM (Li et al. 2024, arXiv:2403.12350, Algorithm 1)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.by_parameter import ByParameter
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, norm, scaled, scaled_to
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_below_1, check_not_negative


class FriendlySAM(SAM):
    """SAM along the part of the gradient that is special to the batch: d = g - sigma m, with m a moving average of g.

    The average stands for the full gradient. As in the authors' code, m is the average over the steps before. The first
    step has no average and is a step of SAM. So it is for the parameters that are unfrozen later, whose average begins
    then.

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
        self.average = ByParameter()

    def perturbation(self, at_w: list[Tensor]) -> list[Tensor]:
        """rho d / ||d||. The call also updates the average."""
        kept = self.average.of(self.passes.module)
        known = [place for place, before in enumerate(kept) if before is not None]
        before = [average for average in kept if average is not None]
        own = [at_w[place] for place in known]
        direction = list(at_w)
        # copies, because averages outlive the gradient
        moved = [part.clone() if average is None else part for part, average in zip(at_w, kept, strict=True)]
        if known:
            along = added(own, before, alpha=-self.sigma)
            follows = added(scaled(before, self.momentum), own, alpha=1 - self.momentum)
            for place, part, average in zip(known, along, follows, strict=True):
                direction[place], moved[place] = part, average
        # a scaler skips the step of a gradient that overflowed; the average must leave that gradient out too
        if self.passes.scaler is None or torch.isfinite(norm(at_w)):
            self.average.keep(self.passes.module, moved)
        return scaled_to(direction, self.rho)

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the average included."""
        return {**super().state_dict(), "average": self.average.state_dict(self.passes.module)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"])
