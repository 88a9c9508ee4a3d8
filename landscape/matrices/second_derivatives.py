"""A check of second derivatives: one product is compared with a difference of first derivatives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from landscape.fx.plain_formulas import twice_differentiable
from landscape.loss.batches import copied_to, in_precision
from landscape.loss.counts import Pair
from landscape.loss.derivatives import derivative
from landscape.loss.objective import Objective
from landscape.loss.weights import tensors_of, with_weights
from landscape.matrices.rule import Rule

SAMPLES = 4
"""Number of samples that are looked at. A second derivative is missing for all samples or for none."""

STEP = 1e-7
"""Length of the step relative to the weights. It needs float64, and hardly ever crosses the kink of a ReLU."""

MOVED = 0.01
"""Distance from the weights at which the comparison is made, relative to them. Weights of 0 may lie on a kink."""

ALLOWED = 1e-3
"""Allowed relative difference. Right products differ by 1e-6; a missing term is at least some percent of a product."""

SPREAD = 10
"""The change from a difference over one step to that over half of it is their error; so many errors are allowed."""

COPIES = 10
"""Number of vectors and models in float64 that the comparison holds at a time."""


class HasRule(Protocol):
    """A matrix class with a rule."""

    rule: ClassVar[Rule]


def check_second_derivatives(matrix: type[HasRule], objective: Objective) -> None:
    """Compares a product of a few samples with a difference of first derivatives, in float64; once an objective.

    The check finds custom functions whose backward torch cannot differentiate but differentiates without a word. It
    makes no comparison for a model that does not run in float64, for one whose copies do not fit into the memory
    budget, and at a point where the differences do not settle.

    Args:
        matrix: class of the matrix.
        objective: gives the matrix. No other thread may swap the weights of its model meanwhile.

    Raises:
        ValueError: product and difference differ, at two points and in two directions.
    """
    if matrix in objective.verified or COPIES * 8 * objective.n_parameters > objective.memory_budget:
        return
    data = copied_to(objective.chunks.first(SAMPLES), objective.device)
    if error := _largest_error(matrix.rule, objective, data):
        raise ValueError(
            f"model: its second derivatives are wrong: a product differs from a difference of gradients by {error:.2g} "
            "of it; a custom autograd.Function whose backward is once_differentiable, or that keeps tensors on ctx "
            "instead of by save_for_backward, and a detach() of what depends on the weights, lose terms silently; "
            "write the backward in differentiable operations of saved tensors, or the forward in plain torch"
        )
    objective.verified.add(matrix)


def _largest_error(rule: Rule, objective: Objective, data: Pair) -> float:
    """The largest relative difference at two points; 0 unless product and difference differ at both."""
    errors = []
    for seed in range(2):
        try:
            error = _error(rule, objective, data, seed)
        except Exception:
            # the model or the loss fixes a dtype inside
            return 0.0
        if error is None:
            return 0.0
        errors.append(error)
    return max(errors)


@torch.enable_grad()
def _error(rule: Rule, objective: Objective, data: Pair, seed: int) -> float | None:
    """The relative difference at a point near theta; None if it is within the error of the differences."""
    model, theta, loss_fn = objective.model, objective.theta, objective.loss_fn
    generator = torch.Generator().manual_seed(seed)
    size = theta.double().square().mean().sqrt().item() or 1.0
    shift, vector = (
        size * torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(theta.device)
        for _ in range(2)
    )
    point = theta.double() + MOVED * shift
    inputs, targets = (in_precision(part, torch.float64) for part in data)
    if isinstance(loss_fn, nn.Module):
        loss_fn = copy.deepcopy(loss_fn).double()
    constants = {name: in_precision(each, torch.float64) for name, each in tensors_of(model).items()}

    def run(theta: Tensor, use: Callable[[Tensor, Any], Tensor]) -> Tensor:
        variable = theta.detach().requires_grad_()
        weights = {**constants, **objective.unflatten(variable)}
        return with_weights(
            model, weights, lambda model: use(variable, objective.run(model, copied_to(inputs, theta.device)))
        )

    def loss(outputs: Any) -> Tensor:
        return loss_fn(outputs, targets)

    with twice_differentiable():
        # for torch the padding row of an embedding is a constant, although the loss depends on it
        slope = run(point, lambda variable, outputs: derivative(loss(outputs), variable))
        vector = vector * (slope != 0)
        product = run(point, lambda variable, outputs: rule.direct(variable, outputs, loss)(vector))
        long, short = (rule.difference(run, loss, point, step * vector) / step for step in (STEP, STEP / 2))
    distance, length = (product - short).norm().item(), short.norm().item()
    # the comparison is false for NaN too, which both may be
    if distance > ALLOWED * length + SPREAD * (long - short).norm().item():
        return distance / max(length, distance)
    return None
