"""SAM: Sharpness-Aware Minimization (Foret et al. 2021, arXiv:2010.01412; Eq. 9 of arXiv:2601.19947)."""

from __future__ import annotations

from torch import Tensor, nn

from ncsam.methods.perturbation import Ascent, LossFunction, backward_at, check_radius, gradient, scaled_to
from ncsam.methods.plain import Plain


class SAM(Plain):
    """The gradient at w + rho g / ||g||, g the gradient at w of the same batch.

    Weights, and BatchNorm statistics after the pass at w, end as they began: only `.grad` changes, so any
    `torch.optim` optimizer may take the step.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.

    Attributes:
        ascent: the first half of the last step: g, the perturbation, and the loss; None before any.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction, *, rho: float) -> None:
        check_radius(rho)
        super().__init__(model, loss_fn)
        self.rho = rho
        self.ascent: Ascent | None = None

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:  # noqa: ARG002
        """The perturbation of this batch at w; moves BatchNorm statistics as one training pass does."""
        loss = self.loss_fn(self.model(inputs), targets)
        at_w = gradient(loss, self.model)
        return Ascent(loss.detach(), at_w, scaled_to(at_w, self.rho))

    def backward(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Adds the gradient at the perturbed weights to `.grad` and returns the loss at w, detached.

        Args:
            inputs: (batch, ...).
            targets: int64 (batch,), observed labels.
            indices: int64 (batch,), positions of the samples in the training set; for the methods that keep a
                memory of samples.
        """
        self.ascent = self.ascend(inputs, targets, indices)
        backward_at(self.model, self.loss_fn, self.ascent.perturbation, inputs, targets)
        self.gradient_count += 2
        return self.ascent.loss
