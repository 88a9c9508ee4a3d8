"""The functional Hessian of a mean loss: the Hessian minus the Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp

from landscape.data.task import LossFunction
from landscape.fx.linearize import Outputs, Product
from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.loss.objective import Objective
from landscape.matrices.gauss_newton import check_that_it_has_outputs
from landscape.matrices.hessian import double_backward, double_backward_in_place
from landscape.matrices.mean_over_samples import MeanOverSamples
from landscape.matrices.outputs import as_one_tensor, slope_in_outputs
from landscape.matrices.rule import Loss, ProductSums, Rule, Run
from landscape.model.derivatives import derivative


def with_fixed_slope(outputs: Any, loss: Loss) -> Tensor:
    """The inner product of the outputs with the loss's slope in them, held fixed. Its Hessian is the functional one."""
    return (as_one_tensor(outputs)[0] * slope_in_outputs(outputs, loss)).sum()


def double_backward_at_fixed_slope(theta: Tensor, outputs: Any, loss: Loss) -> Callable[[Tensor], Tensor]:
    """The functional Hessian of `loss(outputs)` in `theta` times a vector, by double backward."""
    return double_backward(theta, with_fixed_slope(outputs, loss), torch.clone)


def double_backward_at_fixed_slope_in_place(sums: ProductSums, outputs: Any, loss: Loss) -> None:
    """Adds the products of `double_backward_at_fixed_slope` to the sums."""
    double_backward_in_place(sums, with_fixed_slope(outputs, loss), torch.clone)


def difference_at_fixed_slope(run: Run, loss: Loss, theta: Tensor, step: Tensor) -> Tensor:
    """The functional Hessian times a step, to second order: the change of J^T times the slope at `theta`."""
    slope = run(theta, lambda _, outputs: slope_in_outputs(outputs, loss))

    def pulled(variable: Tensor, outputs: Any) -> Tensor:
        return derivative((as_one_tensor(outputs)[0] * slope).sum(), variable)

    return (run(theta + step, pulled) - run(theta - step, pulled)) / 2


def forward_over_reverse_at_fixed_slope(outputs: Outputs, loss_fn: LossFunction) -> Product:
    """The functional Hessian times a vector, forward over reverse."""

    def product(theta: Tensor, vector: Tensor, inputs: Any, targets: Any) -> Tensor:
        slope = grad(lambda scores: loss_fn(scores, targets))(outputs(theta, inputs))
        gradient = grad(lambda point: (outputs(point, inputs) * slope).sum())
        result: Tensor = jvp(gradient, (theta,), (vector,))[1]
        return result

    return product


@matrix_of_loss("functional")
class FunctionalHessian(MeanOverSamples):
    """The curvature of the outputs, weighted by the gradient of the loss in the outputs (Singh et al. 2021).

    It is the Hessian minus the Gauss-Newton matrix. For cross-entropy it is the only part of the Hessian that depends
    on the labels and so on their noise. A product costs as much as one with the Hessian.

    Raises:
        ValueError: the objective has no outputs (`Objective.of_loss`).
    """

    rule = Rule(
        direct=double_backward_at_fixed_slope,
        difference=difference_at_fixed_slope,
        traced=forward_over_reverse_at_fixed_slope,
        in_place=double_backward_at_fixed_slope_in_place,
        uses_slopes=True,
    )

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        check_that_it_has_outputs(objective, "functional Hessian")
        super().__init__(objective, theta)

    def of_regularizer(self, block: Tensor) -> Tensor | float:  # noqa: ARG002
        """Nothing: the regularizer's whole Hessian is part of the Gauss-Newton matrix."""
        return 0.0
