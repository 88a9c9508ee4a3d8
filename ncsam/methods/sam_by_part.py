"""J-SAM and L-SAM: SAM through one of the two parts of the gradient (Baek, Kolter, Raghunathan 2024, arXiv:2405.03676).

By the chain rule the gradient of a sample is J^T s: J is the Jacobian of the outputs in the weights, and s the loss's
gradient in the outputs, for cross-entropy the probabilities minus the label. SAM takes both at w + eps. J-SAM moves J
alone, and L-SAM moves s alone. With these two the paper asks which part makes SAM robust to label noise. It perturbs
each sample by itself (1-SAM); here a batch has one perturbation, as in SAM.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ncsam.methods.batches import Batch
from ncsam.methods.outputs import one_tensor
from ncsam.methods.outside_parameters import check_that_all_are_the_models
from ncsam.methods.passes import Passes
from ncsam.methods.perturbation import Ascent, perturbed
from ncsam.methods.sam import SAM


class JacobianSAM(SAM):
    """J-SAM: the Jacobian at w + rho g / ||g||, the loss's gradient in the outputs at w.

    Args:
        model: in training mode. It returns one tensor.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.
        others: `warmup`, `forward` and `count`, as for `SAM`.
    """

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the mean of J(w + eps)^T s(w) to `.grad`."""
        if self.stays_at_w:
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        loss, outputs, at_w = self.passes.gradient(inputs, targets, indices, moves_statistics=True)
        self.ascent = Ascent(loss, at_w, self.perturbation(at_w))
        slopes = _slopes(self.passes, outputs, inputs, targets, indices)
        with perturbed(self.passes.module, self.ascent.perturbation):
            self.passes.accumulate(_pulled_back(self.passes, inputs, slopes, indices))
        return loss


class LogitSAM(SAM):
    """L-SAM: the Jacobian at w, the loss's gradient in the outputs at w + eps; arguments as for `JacobianSAM`."""

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the mean of J(w)^T s(w + eps) to `.grad`."""
        if self.stays_at_w:
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        self.ascent = self.ascend(inputs, targets, indices)
        with perturbed(self.passes.module, self.ascent.perturbation):
            outputs = self.passes.outputs_alone(inputs, targets, indices)
        slopes = _slopes(self.passes, outputs, inputs, targets, indices)
        self.passes.accumulate(_pulled_back(self.passes, inputs, slopes, indices))
        return self.ascent.loss


def mean_inner_product(outputs: Tensor, slopes: Tensor) -> Tensor:
    """The mean over samples of the inner product of outputs and slopes. Its gradient is the mean of J^T s."""
    return (outputs * slopes).sum() / len(outputs)


def _pulled_back(passes: Passes, inputs: Tensor, slopes: Tensor, indices: Tensor | None) -> list[Tensor]:
    """The mean over samples of J^T s at the model's current weights."""
    return passes.gradient(inputs, slopes, indices, loss_fn=mean_inner_product, is_combined=True)[2]


def _slopes(passes: Passes, outputs: Any, inputs: Batch, targets: Tensor, indices: Tensor | None) -> Tensor:
    """The gradient of each sample's loss in its outputs, of the outputs' shape.

    Raises:
        ValueError: the outputs are no tensor, or a loss that a closure returned.
    """
    outputs = one_tensor(outputs, "J-SAM and L-SAM")
    leaf = outputs.detach().requires_grad_()
    with passes.unmoved():
        loss = passes.loss(leaf, targets, indices)
        check_that_all_are_the_models(loss, passes.module)
        (slopes,) = torch.autograd.grad(loss, leaf)
    # ranks are weighted by the loss, and the mean of the products weights them by samples
    of_loss = passes.rank_factor(inputs, targets)
    of_samples = passes.rank_factor(inputs, slopes, mean_inner_product)
    return slopes * (len(outputs) * of_loss / of_samples) if of_loss else torch.zeros_like(slopes)
