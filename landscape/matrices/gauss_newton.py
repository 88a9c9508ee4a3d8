"""The Gauss-Newton matrix of a mean loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

from landscape.data.task import LossFunction
from landscape.fx.linearize import Outputs, Product
from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.loss.objective import Objective
from landscape.matrices.mean_over_samples import MeanOverSamples
from landscape.matrices.outputs import as_one_tensor, slope_in_outputs
from landscape.matrices.rule import Loss, ProductSums, Rule, Run
from landscape.model.derivatives import add_derivative, derivative, gradient_edges


def three_reverse_passes(theta: Tensor, outputs: Any, loss: Loss) -> Callable[[Tensor], Tensor]:
    """The Gauss-Newton matrix of `loss(outputs)` in `theta` times a vector, without forward-mode derivatives.

    J^T u is linear in u. So J times a vector is the gradient of (J^T u) . vector with respect to u (Townsend 2017).
    """
    outputs, whole = as_one_tensor(outputs)
    scores = outputs.detach().clone().requires_grad_()
    slope = derivative(loss(whole(scores.clone())), scores, create_graph=True)
    direction = torch.zeros_like(outputs, requires_grad=True)
    pulled = derivative((outputs * direction).sum(), theta, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        moved = derivative(pulled @ vector, direction, retain_graph=True)
        curved = derivative((slope * moved).sum(), scores, retain_graph=True)
        return derivative((outputs * curved).sum(), theta, retain_graph=True)

    return product


def three_reverse_passes_in_place(sums: ProductSums, outputs: Any, loss: Loss) -> None:
    """Adds the products of `three_reverse_passes` to the sums."""
    outputs, whole = as_one_tensor(outputs)
    scores = outputs.detach().clone().requires_grad_()
    slope = derivative(loss(whole(scores.clone())), scores, create_graph=True)
    direction = torch.zeros_like(outputs, requires_grad=True)
    pulled = gradient_edges((outputs * direction).sum(), sums.variables)
    reached = [place for place, edge in enumerate(pulled) if edge is not None]
    for vector, total in zip(sums.vectors, sums.totals, strict=True):
        (moved,) = torch.autograd.grad(
            [edge for edge in pulled if edge is not None],
            direction,
            [vector[place] for place in reached],
            retain_graph=True,
        )
        curved = derivative((slope * moved).sum(), scores, retain_graph=True)
        add_derivative([outputs], sums.variables, total, along=[curved], retain_graph=True)


def difference_of_slopes(run: Run, loss: Loss, theta: Tensor, step: Tensor) -> Tensor:
    """The Gauss-Newton matrix times a step, to second order: J^T times the change of the loss' slope in the outputs."""

    def slope(_: Tensor, outputs: Any) -> Tensor:
        return slope_in_outputs(outputs, loss)

    change = (run(theta + step, slope) - run(theta - step, slope)) / 2
    return run(
        theta, lambda variable, outputs: derivative((as_one_tensor(outputs)[0] * change).sum(), variable)
    )


def forward_and_reverse(outputs: Outputs, loss_fn: LossFunction) -> Product:
    """J^T (Hessian of the loss in the outputs) J times a vector, with J the outputs' Jacobian (Schraudolph 2002)."""

    def product(theta: Tensor, vector: Tensor, inputs: Any, targets: Any) -> Tensor:
        def forward(point: Tensor) -> Tensor:
            return outputs(point, inputs)

        reverse: Any = vjp(forward, theta)
        scores, pullback = reverse
        moved = jvp(forward, (theta,), (vector,))[1]

        def loss(z: Tensor) -> Tensor:
            return loss_fn(z, targets)

        curved = jvp(grad(loss), (scores,), (moved,))[1]
        result: Tensor = pullback(curved)[0]
        return result

    return product


@matrix_of_loss("gauss-newton")
class GaussNewton(MeanOverSamples):
    """The mean over the samples of J^T H J, with J the outputs' Jacobian and H the loss's Hessian in the outputs.

    It is the Hessian without the term of the outputs' second derivatives, and is positive semidefinite for convex
    losses. For cross-entropy on logits it is the Fisher matrix and does not depend on the labels. A regularizer adds
    its whole Hessian, because it depends on the weights directly, as if these were its outputs.

    Raises:
        ValueError: the objective has no outputs (`Objective.of_loss`).
    """

    rule = Rule(
        direct=three_reverse_passes,
        difference=difference_of_slopes,
        traced=forward_and_reverse,
        in_place=three_reverse_passes_in_place,
        uses_slopes=True,
    )

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        check_that_it_has_outputs(objective, "Gauss-Newton matrix")
        super().__init__(objective, theta)


def check_that_it_has_outputs(objective: Objective, matrix: str) -> None:
    """Raises ValueError if the loss is not one of outputs, so that it has no `matrix`."""
    if not objective.has_outputs:
        raise ValueError(
            f"matrix: the {matrix} needs outputs and a loss of these, which Objective.of_loss has not; "
            "make the Objective with forward= and a loss of (outputs, batch), or take matrix='hessian'"
        )
