"""The Hessian of a mean loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import grad, jvp

from landscape.data.task import LossFunction
from landscape.fx.linearize import Outputs, Product
from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.matrices.mean_over_samples import MeanOverSamples
from landscape.matrices.rule import Loss, ProductSums, Rule, Run
from landscape.model.derivatives import add_derivative, derivative, gradient_edges


def double_backward(theta: Tensor, outputs: Any, loss: Loss) -> Callable[[Tensor], Tensor]:
    """The Hessian of `loss(outputs)` in `theta` times a vector, by double backward: one graph for all vectors.

    This way needs no forward-mode derivatives, which some operations lack.
    """
    gradient = derivative(loss(outputs), theta, create_graph=True)
    return lambda vector: derivative(gradient @ vector, theta, retain_graph=True)


def double_backward_in_place(sums: ProductSums, outputs: Any, loss: Loss) -> None:
    """Adds the products of `double_backward` to the sums."""
    gradient = gradient_edges(loss(outputs), sums.variables)
    last = len(sums.vectors) - 1
    for place, (vector, total) in enumerate(zip(sums.vectors, sums.totals, strict=True)):
        add_derivative(gradient, sums.variables, total, along=vector, retain_graph=place < last)


def difference_of_gradients(run: Run, loss: Loss, theta: Tensor, step: Tensor) -> Tensor:
    """The Hessian of the loss times a step, to second order in the step."""

    def gradient(variable: Tensor, outputs: Any) -> Tensor:
        return derivative(loss(outputs), variable)

    return (run(theta + step, gradient) - run(theta - step, gradient)) / 2


def forward_over_reverse(outputs: Outputs, loss_fn: LossFunction) -> Product:
    """The Hessian of the loss times a vector, forward over reverse (Pearlmutter 1994)."""

    def product(theta: Tensor, vector: Tensor, inputs: Any, targets: Any) -> Tensor:
        gradient = grad(lambda point: loss_fn(outputs(point, inputs), targets))
        result: Tensor = jvp(gradient, (theta,), (vector,))[1]
        return result

    return product


@matrix_of_loss("hessian")
class Hessian(MeanOverSamples):
    """The Hessian of the mean loss: the second derivatives in the weights."""

    rule = Rule(
        direct=double_backward,
        difference=difference_of_gradients,
        traced=forward_over_reverse,
        in_place=double_backward_in_place,
    )
