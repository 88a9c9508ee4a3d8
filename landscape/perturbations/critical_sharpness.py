"""The critical learning rate: the smallest one at which an update raises the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.model.long_vectors import dot, norm
from landscape.model.weights import Weights
from landscape.perturbations.critical_rate import Bounds, Trial, bracketed, narrowed
from landscape.perturbations.rounding import rounding_of
from landscape.results.fields import LOSS_UNIT, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result

MOST_ROUNDED = 0.1
"""The largest change of an update by the rounding of the moved weights, as a share of the tolerance."""


@result
class CriticalSharpness(Result):
    """The smallest learning rate that was found at which an update raises the loss, with its bounds."""

    value: float = described(
        "critical sharpness, 2 / critical learning rate: the curvature along the update of the parabola that rises "
        "there; infinite where the loss rises at once; NaN where rounding hides its fall"
    )
    learning_rate: float = described(
        "critical learning rate: the middle between the bounds; 0 where the loss rises at once, infinite where it does "
        "not rise, NaN where rounding hides the fall or the rise"
    )
    low: float = described("largest learning rate tried at which the loss does not rise; 0 if none")
    high: float = described("smallest learning rate tried at which the loss rises")
    steps: float = described("critical learning rate as a multiple of the update's own")
    center_loss: float = described("mean loss before the update", unit=LOSS_UNIT)
    converged: bool = described("the bounds are within the tolerance asked for")
    tol: float = described("distance of the bounds asked for, as a share of the learning rate")
    passes: int = described("forward passes over the data spent", unit="passes")
    samples: int = described("samples in the mean loss")
    loss_unit: str = loss_unit_field()


@of_objective
def critical_sharpness(
    objective: Objective,
    update: Weights,
    *,
    learning_rate: float = 1.0,
    guess: float | None = None,
    tol: float = 0.1,
    max_passes: int = 30,
) -> CriticalSharpness:
    """The critical sharpness 2 / eta_c (arXiv:2601.16979): eta_c is the smallest learning rate that raises the loss.

    The loss at the learning rate eta is L(theta + eta / learning_rate update), where theta are the objective's weights.
    For a quadratic loss and a step along the gradient, the value is the curvature along the gradient. If the gradient
    is an eigenvector of the Hessian, this curvature is its eigenvalue. The update may be of another loss than the
    objective's: the loss with observed labels, for an objective with clean ones. Then the value is the relative
    critical sharpness.

    The search begins at the first learning rate. It doubles or halves the rate until the loss rises at one rate and
    does not rise at another. Then the parabola through the losses gives the next rate. A search typically takes 5 to 6
    forward passes. A rise and fall of the loss between two tried learning rates is missed.

    Args:
        objective: the objective at the weights before the update.
        update: the weights after the update minus the weights before.
        learning_rate: learning rate of the update. With 1 the result counts in updates.
        guess: the first learning rate, such as the last critical one. If not given, twice that of the update.
        tol: largest distance of the bounds, as a share of the upper one.
        max_passes: most forward passes.

    Raises:
        ValueError: an argument out of range, or an update that is zero or of another size.
    """
    _check(learning_rate, guess, tol, max_passes)
    # the step, its multiple, the moved weights, and the change that they hold
    objective.memory.check_room(4, "critical_sharpness")
    step = objective.flatten(update) / learning_rate
    if not bool(step.any()):
        raise ValueError("update: is zero; there is no direction in which the loss could rise")
    center = objective.value()
    passes = 1

    rounding = rounding_of(center, objective.dtype)

    def tried(rate: float) -> Trial:
        nonlocal passes
        passes += 1
        change = rate * step
        moved = objective.theta + change
        is_rounded = _share_of_rounding(moved - objective.theta, change) > MOST_ROUNDED * tol
        del change
        loss = objective.value(moved)
        if not math.isfinite(loss):
            return Trial(rate, math.inf, 0.0)
        return Trial(rate, loss - center, math.inf if is_rounded else rounding)

    if not math.isfinite(center) or not bool(torch.isfinite(step).all()):
        bounds = Bounds.of_no_number()
    else:
        first = 2 * learning_rate if guess is None else guess
        bounds = bracketed(tried, first, max_passes - 1)
        bounds = narrowed(tried, bounds, tol, lambda: passes < max_passes)
    found = bounds.middle
    return CriticalSharpness(
        value=2 / found if found else math.inf,
        learning_rate=found,
        low=bounds.lower,
        high=bounds.upper,
        steps=found / learning_rate,
        center_loss=center,
        converged=bounds.are_within(tol),
        tol=tol,
        passes=passes,
        samples=objective.n_samples,
        loss_unit=unit_of(objective.loss_fn),
    )


def _share_of_rounding(moved: Tensor, asked: Tensor) -> float:
    """By how much the rounding of the weights changes what a change (n,) of them does to the loss, as a share.

    In float32 a short change of long weights is another one than was asked for. Its part along the change counts in
    full. The rest has no direction of its own, and a slope in n dimensions meets 1 / sqrt(n) of it.
    """
    length = norm(asked)
    if not 0 < length < math.inf:
        return math.inf
    error = moved.sub_(asked)
    along = abs(dot(error, asked)) / length**2
    return max(along, 3 * norm(error) / length / math.sqrt(max(len(asked), 9)))


def _check(learning_rate: float, guess: float | None, tol: float, max_passes: int) -> None:
    for name, value in (("learning_rate", learning_rate), ("guess", guess)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: must be positive and finite, got {value}")
    if not 0 < tol < 1:
        raise ValueError(f"tol: must lie between 0 and 1, got {tol}")
    if max_passes < 3:
        raise ValueError(f"max_passes: must be at least 3, got {max_passes}")
