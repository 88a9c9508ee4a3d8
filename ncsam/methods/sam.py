"""SAM: Sharpness-Aware Minimization (Foret et al. 2021, arXiv:2010.01412; Eq. 9 of arXiv:2601.19947)."""

from __future__ import annotations

from typing import Required, Unpack

from torch import Tensor, nn

from ncsam.methods.batches import OfBatch
from ncsam.methods.method import Method
from ncsam.methods.perturbation import Ascent, check_radius, perturbed
from ncsam.methods.tensor_lists import scaled_to
from ncsam.methods.training_loss import TrainingLoss


class SAMOptions(OfBatch, total=False):
    """The options of `SAM`. Its variants take them too; `SAM` has the defaults."""

    rho: Required[float]
    warmup: float


class SAM(Method):
    """The gradient at w + rho g / ||g||, where g is the gradient of the same batch at w.

    At the end of a call the weights are w again. State, such as the statistics of BatchNorm, a momentum encoder, or a
    running mean of the loss, is that after the pass at w; the other passes begin where that one began. Only `.grad` has
    changed beside it, so any optimizer of `torch.optim` may take the step.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0 is the ordinary gradient.
        warmup: share of the training with ordinary gradients.
        of_batch: `forward` and `count`, see `Method`.
    """

    rho: float

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho: float,
        warmup: float = 0.0,
        **of_batch: Unpack[OfBatch],
    ) -> None:
        check_radius(rho)
        super().__init__(model, loss_fn, warmup=warmup, **of_batch)
        self.rho = rho

    @property
    def stays_at_w(self) -> bool:
        """Whether every perturbation is zero, so that the gradient is the ordinary one."""
        return self.rho == 0

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Ascends at w, then descends at w + perturbation."""
        if self.stays_at_w:
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        self.ascent = self.ascend(inputs, targets, indices)
        self.descend(self.ascent, inputs, targets, indices)
        return self.ascent.loss

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:
        """The perturbation of this batch at w. The pass moves the statistics of BatchNorm as one training pass does."""
        loss, _, at_w = self.passes.gradient(inputs, targets, indices, moves_statistics=True)
        return Ascent(loss, at_w, self.perturbation(at_w))

    def perturbation(self, at_w: list[Tensor]) -> list[Tensor]:
        """The perturbation of the weights, from the gradient at w."""
        return scaled_to(at_w, self.rho)

    def descend(self, ascent: Ascent, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> None:
        """Adds the gradient at the perturbed weights to `.grad`."""
        with perturbed(self.passes.module, ascent.perturbation):
            self.passes.backward(inputs, targets, indices, moves_statistics=False)

    def gradient_at(
        self, perturbation: list[Tensor], inputs: Tensor, targets: Tensor, indices: Tensor | None
    ) -> list[Tensor]:
        """The gradient at w + perturbation, for methods that combine several gradients."""
        with perturbed(self.passes.module, perturbation):
            return self.passes.gradient(inputs, targets, indices, is_combined=True)[2]
