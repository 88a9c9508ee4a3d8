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

from ncsam.methods.perturbation import Ascent, perturbed, unmoved_buffers
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
        self.ascent, outputs = _ascent_and_outputs(self, inputs, targets, indices)
        slopes = _slopes(self, outputs, targets, indices)
        with perturbed(self.passes.module, self.ascent.perturbation):
            found = self.passes.gradient(inputs, slopes, indices, loss_fn=mean_inner_product)[2]
        self.passes.accumulate(found)
        return self.ascent.loss


class LogitSAM(SAM):
    """L-SAM: the Jacobian at w, the loss's gradient in the outputs at w + eps; arguments as for `JacobianSAM`."""

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the mean of J(w)^T s(w + eps) to `.grad`."""
        if self.stays_at_w:
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        self.ascent, _ = _ascent_and_outputs(self, inputs, targets, indices)
        module = self.passes.module
        with perturbed(module, self.ascent.perturbation), unmoved_buffers(module), torch.no_grad():
            outputs = self.passes.outputs(module, inputs, indices, first=False)
        slopes = _slopes(self, outputs, targets, indices)
        found = self.passes.gradient(inputs, slopes, indices, loss_fn=mean_inner_product)[2]
        self.passes.accumulate(found)
        return self.ascent.loss


def mean_inner_product(outputs: Tensor, slopes: Tensor) -> Tensor:
    """The mean over samples of the inner product of outputs and slopes. Its gradient is the mean of J^T s."""
    return (outputs * slopes).sum() / len(outputs)


def _ascent_and_outputs(
    method: SAM, inputs: Tensor, targets: Tensor, indices: Tensor | None
) -> tuple[Ascent, Any]:
    """The perturbation of this batch at w, and the outputs there.

    Raises:
        ValueError: micro-batches are asked for.
    """
    if method.passes.micro_batch_size is not None:
        raise ValueError("micro_batch_size: J-SAM and L-SAM take whole batches; leave it out")
    loss, outputs, at_w = method.passes.gradient(inputs, targets, indices, moves_statistics=True)
    return Ascent(loss, at_w, method.perturbation(at_w)), outputs


def _slopes(method: SAM, outputs: Any, targets: Tensor, indices: Tensor | None) -> Tensor:
    """The gradient of each sample's loss in its outputs, of the outputs' shape.

    Raises:
        ValueError: the outputs are no tensor.
    """
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model: must return one tensor for J-SAM and L-SAM, got {type(outputs).__name__}; wrap it in a module "
            "that returns the outputs alone"
        )
    leaf = outputs.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(method.passes.loss(leaf, targets, indices), leaf)
    return slopes * len(outputs)
