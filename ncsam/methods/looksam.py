"""LookSAM: SAM's second gradient in every k-th step only (Liu et al. 2022, arXiv:2203.02714, Algorithm 1)."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.by_parameter import ByParameter
from ncsam.methods.perturbation import Ascent
from ncsam.methods.sam import SAM, SAMOptions
from ncsam.methods.tensor_lists import added, inner_product, norm, ratio, scaled, scaled_to
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_at_least, check_not_negative


class LookSAM(SAM):
    """Takes SAM's gradient g_s in every k-th step, and adds a part of g_s to the gradient g of the steps between.

    That part is g_v, the part of g_s that is orthogonal to g and turns to flat regions. It changes slowly, so it is
    kept for the steps between, whose gradient is g + alpha |g| / |g_v| g_v. The first step is one of SAM, and so is the
    next one after layers were frozen or unfrozen. All norms are over all weights together.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        every: k; 5 in the paper.
        alpha: weight of the kept part; 0.7 in the paper.
        others: `rho`, `warmup`, `forward` and `count`, as for `SAM`.

    Raises:
        ValueError: settings out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        every: int = 5,
        alpha: float = 0.7,
        **others: Unpack[SAMOptions],
    ) -> None:
        super().__init__(model, loss_fn, **others)
        check_at_least("every", every, 1)
        check_not_negative("alpha", alpha)
        self.every = every
        self.alpha = alpha
        self.step = 0
        self.kept = ByParameter()

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """SAM's gradient in every k-th call, else the ordinary one with the kept part added."""
        turn = self.step % self.every
        self.step += 1
        kept = self._known() if turn and not self.stays_at_w else []
        if not kept:
            return super().fill_own_gradients(inputs, targets, indices)
        loss, _, at_w = self.passes.gradient(
            inputs, targets, indices, moves_statistics=True, is_combined=True
        )
        self.passes.accumulate(added(at_w, scaled_to(kept, self.alpha * norm(at_w))))
        return loss

    def _known(self) -> list[Tensor]:
        """The kept part, if it is of just the parameters that require a gradient now; else nothing."""
        kept = self.kept.of(self.passes.module)
        known = [each for each in kept if each is not None]
        return known if len(known) == len(kept) == len(self.kept.tensors) else []

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds the gradient at the perturbed weights to `.grad`, and keeps its part that is orthogonal to g."""
        sharp = self.gradient_at(ascent.perturbation, inputs, targets, indices)
        at_w = ascent.gradient
        along = ratio(inner_product(at_w, sharp), inner_product(at_w, at_w))
        kept = added(sharp, scaled(at_w, along), alpha=-1.0)
        # what overflowed is not kept, and the next step is one of SAM
        if torch.isfinite(norm(kept)):
            self.kept.keep(self.passes.module, kept)
        else:
            self.kept.forget()
        self.passes.accumulate(sharp)

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the kept part included."""
        return {**super().state_dict(), "step": self.step, "kept": self.kept.state_dict(self.passes.module)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.step = state["step"]
        self.kept.load_state_dict(state["kept"])
