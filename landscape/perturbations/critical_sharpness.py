"""The critical learning rate: the smallest one at which an update raises the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.model.weights import Weights
from landscape.results.fields import LOSS_UNIT, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result

MOST_DOUBLINGS = 20
"""All tried learning rates are within a factor of 2^20, a million, of the first one."""


@result
class CriticalSharpness(Result):
    """The smallest learning rate that was found at which an update raises the loss, with its bounds."""

    value: float = described(
        "critical sharpness, 2 / critical learning rate: the curvature along the update of the parabola that rises "
        "there; infinite where the loss rises at once"
    )
    learning_rate: float = described(
        "critical learning rate: the middle between the bounds; 0 where the loss rises at once, infinite where it does "
        "not rise"
    )
    low: float = described("largest learning rate tried at which the loss does not rise")
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
    # the step, its multiple, and the moved weights twice
    objective.memory.check_room(4, "critical_sharpness")
    step = objective.flatten(update) / learning_rate
    if not bool(step.any()):
        raise ValueError("update: is zero; there is no direction in which the loss could rise")
    center = objective.value()
    passes = 1

    def rise(rate: float) -> float:
        nonlocal passes
        passes += 1
        loss = objective.value(objective.theta + rate * step)
        return loss - center if math.isfinite(loss) else math.inf

    if not math.isfinite(center) or not bool(torch.isfinite(step).all()):
        bounds = _Bounds(math.nan, math.nan)
    else:
        first = 2 * learning_rate if guess is None else guess
        bounds = _bracketed(rise, first, max_passes - 1)
        bounds = _narrowed(rise, bounds, tol, lambda: passes < max_passes)
    found = bounds.middle
    return CriticalSharpness(
        value=2 / found if found else math.inf,
        learning_rate=found,
        low=bounds.low,
        high=bounds.high,
        steps=found / learning_rate,
        center_loss=center,
        converged=bounds.are_within(tol),
        tol=tol,
        passes=passes,
        samples=objective.n_samples,
        loss_unit=unit_of(objective.loss_fn),
    )


@dataclass(frozen=True)
class _Bounds:
    """Learning rates at which the loss does not rise (`low`) and at which it rises (`high`), and the rises there.

    The slope is the rise divided by the learning rate. It has the sign of the rise, and is linear for a quadratic loss.
    """

    low: float
    high: float
    low_slope: float = math.nan
    high_slope: float = math.nan

    @property
    def middle(self) -> float:
        """A learning rate between the bounds; 0 or infinite if a bound is missing."""
        if self.low == 0 or math.isinf(self.high):
            return self.low if self.low == 0 else math.inf
        return (self.low + self.high) / 2

    def are_within(self, tol: float) -> bool:
        """Whether the bounds lie close together."""
        return self.low > 0 and self.high < math.inf and self.high - self.low <= tol * self.high

    def with_rate(self, rate: float, rise: float) -> _Bounds:
        """The bounds after a trial of one more learning rate between them."""
        slope = rise / rate
        if rise > 0:
            return _Bounds(self.low, rate, self.low_slope, slope)
        return _Bounds(rate, self.high, slope, self.high_slope)


def _bracketed(rise: Callable[[float], float], first: float, most_passes: int) -> _Bounds:
    """Doubles or halves the learning rate until the loss rises at one rate and does not rise at another."""
    bounds = _Bounds(0.0, math.inf)
    rate = first
    for _ in range(min(MOST_DOUBLINGS, most_passes)):
        bounds = bounds.with_rate(rate, rise(rate))
        if bounds.low > 0 and math.isfinite(bounds.high):
            break
        rate = 2 * bounds.low if bounds.low > 0 else bounds.high / 2
    return bounds


def _narrowed(
    rise: Callable[[float], float], bounds: _Bounds, tol: float, may_go_on: Callable[[], bool]
) -> _Bounds:
    """Tries rates on both sides of the slope's estimated root, until the bounds are close together."""
    if bounds.low == 0 or math.isinf(bounds.high):
        return bounds
    while not bounds.are_within(tol) and may_go_on():
        width = bounds.high - bounds.low
        root = bounds.low + width / 2
        if math.isfinite(bounds.high_slope):
            root = bounds.low - bounds.low_slope * width / (bounds.high_slope - bounds.low_slope)
        # just beyond the root, on the side where the bound is still far
        margin = 0.4 * tol * root
        rate = root + margin if bounds.high - root > root - bounds.low else root - margin
        rate = min(max(rate, bounds.low + 0.05 * width), bounds.high - 0.05 * width)
        bounds = bounds.with_rate(rate, rise(rate))
    return bounds


def _check(learning_rate: float, guess: float | None, tol: float, max_passes: int) -> None:
    for name, value in (("learning_rate", learning_rate), ("guess", guess)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: must be positive and finite, got {value}")
    if not 0 < tol < 1:
        raise ValueError(f"tol: must lie between 0 and 1, got {tol}")
    if max_passes < 3:
        raise ValueError(f"max_passes: must be at least 3, got {max_passes}")
