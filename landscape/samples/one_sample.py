"""The loss of one sample, and its first and second derivatives, as functions that torch can vectorize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp
from torch.utils._pytree import tree_map

from landscape.data.counts import Pair
from landscape.data.task import LossFunction
from landscape.loss.objective import Objective
from landscape.matrices.outputs import as_one_tensor
from landscape.model.long_vectors import power_of_two


@dataclass(frozen=True)
class OneSample:
    """The model and the loss of one sample: a row of each input and target, which is passed as a batch of one.

    Attributes:
        forward: (theta, inputs) -> outputs.
        loss_fn: (outputs, targets) -> mean loss.
        theta: the weights (n,).
    """

    forward: Callable[[Tensor, Any], Any]
    loss_fn: LossFunction
    theta: Tensor

    @classmethod
    def of(cls, objective: Objective) -> OneSample:
        """The samples of an objective, at its own weights."""
        return cls(objective.forward, objective.loss_fn, objective.theta)

    def outputs(self, batch: Pair) -> Tensor:
        """All floating-point outputs of a batch of one, as a vector (outputs,)."""
        return self._scores(self.theta, batch[0])

    def gradient(self, sample: Pair) -> Tensor:
        """The gradient (n,) of the loss."""
        inputs, targets = _batch_of(sample)
        return grad(lambda theta: self.loss_fn(self.forward(theta, inputs), targets).reshape(()))(self.theta)

    def first_order(self, sample: Pair, mean_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the gradient's norm, and the cosine between the gradient and another vector."""
        inputs, targets = _batch_of(sample)
        loss = self.loss_fn(self.forward(self.theta, inputs), targets).reshape(())
        return loss, *_norm_and_cosine(self.gradient(sample), mean_gradient)

    def of_all_outputs(self, sample: Pair, mean_gradient: Tensor) -> tuple[Tensor, ...]:
        """Loss, norm and cosine of the gradient, and the traces of Gauss-Newton and Fisher matrix, exactly.

        If J is the outputs' Jacobian, the trace of J^T M J is the sum of the entries of M * (J J^T). The cost is one
        backward pass for each output.
        """
        inputs, _ = _batch_of(sample)
        pullback: Any = vjp(lambda theta: self._scores(theta, inputs), self.theta)[1]
        scores, loss = self._scores_and_loss(sample)
        rows = torch.stack([pullback(unit)[0] for unit in torch.eye(len(scores), device="cpu").to(scores)])
        gram = rows @ rows.T
        gradient = grad(loss)(scores) @ rows
        gauss_newton = (jacrev(grad(loss))(scores) * gram).sum()
        fisher = (_covariance_of_labels(scores) * gram).sum()
        return loss(scores), *_norm_and_cosine(gradient, mean_gradient), gauss_newton, fisher

    def of_output_probe(self, sample: Pair, signs: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of the traces of Gauss-Newton and Fisher matrix: (J^T M z) . (J^T z), whose mean is the trace.

        Args:
            sample: the sample.
            signs: z (outputs,), random signs.
        """
        inputs, _ = _batch_of(sample)
        pullback: Any = vjp(lambda theta: self._scores(theta, inputs), self.theta)[1]
        scores, loss = self._scores_and_loss(sample)
        curved = vjp(grad(loss), scores)[1](signs)[0]
        pulled = pullback(signs)[0]
        return (
            pullback(curved)[0] @ pulled,
            pullback(_covariance_of_labels(scores) @ signs)[0] @ pulled,
        )

    def of_weight_probe(self, sample: Pair, direction: Tensor) -> tuple[Tensor]:
        """Direction v (n,) -> v^T H v, H the Hessian of the loss in the weights."""
        inputs, targets = _batch_of(sample)
        return (
            self._twice(
                lambda theta: self.loss_fn(self.forward(theta, inputs), targets).reshape(()), direction
            ),
        )

    def of_functional_probe(self, sample: Pair, direction: Tensor) -> tuple[Tensor]:
        """Direction v (n,) -> v^T F v, F the functional Hessian: the Hessian less the Gauss-Newton matrix.

        F is the Hessian of the outputs, weighted by the gradient of the loss in the outputs.
        """
        inputs, _ = _batch_of(sample)
        scores, loss = self._scores_and_loss(sample)
        slope = grad(loss)(scores)
        return (self._twice(lambda theta: slope @ self._scores(theta, inputs), direction),)

    def _twice(self, function: Callable[[Tensor], Tensor], direction: Tensor) -> Tensor:
        """The second derivative of a function of the weights along a direction.

        Both derivatives are in reverse mode. Torch's forward-mode derivatives of forward-mode derivatives are wrong for
        LayerNorm, without an error.
        """
        pullback: Any = vjp(grad(function), self.theta)[1]
        return direction @ pullback(direction)[0]

    def of_input_probe(self, sample: Pair, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Direction v of the input's shape -> v^T H v and ||H v||^2, H the Hessian of the loss in the input."""
        _, targets = _batch_of(sample)

        def loss(inputs: Tensor) -> Tensor:
            return self.loss_fn(self.forward(self.theta, inputs.unsqueeze(0)), targets).reshape(())

        pullback: Any = vjp(grad(loss), sample[0])[1]
        product = pullback(direction)[0]
        return (direction * product).sum(), product.double().square().sum()

    def _scores(self, theta: Tensor, inputs: Any) -> Tensor:
        return as_one_tensor(self.forward(theta, inputs))[0].flatten()

    def _scores_and_loss(self, sample: Pair) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The outputs (outputs,), and the loss as a function of the outputs."""
        inputs, targets = _batch_of(sample)
        outputs, whole = as_one_tensor(self.forward(self.theta, inputs))
        shape = outputs.shape
        return outputs.flatten(), lambda scores: self.loss_fn(whole(scores.view(shape)), targets).reshape(())


def _batch_of(sample: Pair) -> Pair:
    pair: Pair = tree_map(lambda leaf: leaf.unsqueeze(0), sample)
    return pair


def _norm_and_cosine(gradient: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Norm and cosine. The cosine of a vector of zeros is NaN."""
    unit = power_of_two(gradient)
    scaled, other = gradient / unit, other / power_of_two(other)
    length = torch.linalg.vector_norm(scaled)
    return length * unit, (scaled / length) @ (other / torch.linalg.vector_norm(other))


def _covariance_of_labels(scores: Tensor) -> Tensor:
    """The covariance diag p - p p^T of labels drawn from the softmax p of the scores."""
    chances = scores.softmax(0)
    return torch.diag(chances) - torch.outer(chances, chances)
