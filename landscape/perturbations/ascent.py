"""An ascent to a largest rise of a loss within a neighborhood of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.model.long_vectors import dot, length, norm, of_length
from landscape.perturbations.secant_model import SecantModel

NORMS = ("l2", "linf")
SHORT = 8
"""Gradients of a short ascent. `bench/sharpness_starts.py` compares with whole ascents from more starts."""
MOST_POINTS = 12
"""Number of points that the secant model keeps. More points did not shorten ascents of trained networks."""
MOST_FAILURES = 7
"""Steps down in a row that end an ascent. The last of them is a thousandth of the radius: no higher point is near."""
PATIENCE = 15
"""An ascent ends after this number of gradients if the loss has not risen by a tenth of the tolerance meanwhile."""
INSIDE = 1e-3
"""A point nearer than this share of the radius to the border, or to the center, counts as lying on it."""
SHORTER = 4.0
"""The step after a step down is shorter by this factor."""


@dataclass(frozen=True)
class Neighborhood:
    """The points theta + scale u with ||u|| <= rho.

    Attributes:
        rho: radius.
        norm: `"l2"`, a ball, or `"linf"`, a box.
        scale: multiplies u entry by entry; (n,), or 1 for all entries.
    """

    rho: float
    norm: str
    scale: Tensor | float

    def border(self, direction: Tensor, out: Tensor | None = None) -> Tensor:
        """The point of the border at which a linear function with this gradient is largest; 0 if the gradient is 0."""
        if self.norm == "linf":
            return torch.sign(direction, out=out).mul_(self.rho)
        return of_length(direction, self.rho, out)

    def nearest(self, point: Tensor) -> Tensor:
        """The nearest point of the neighborhood, in place."""
        if self.norm == "linf":
            return point.clamp_(-self.rho, self.rho)
        found = length(point)
        return of_length(point, self.rho, out=point) if found > self.rho else point

    def gain(self, gradient: Tensor, point: Tensor | None = None) -> float:
        """The largest value of a linear function with this gradient in the neighborhood, minus its value at `point`.

        The point is the center if not given.
        """
        largest = self.rho * norm(gradient, 1 if self.norm == "linf" else 2)
        return largest if point is None else largest - dot(gradient, point)

    def weights(self, theta: Tensor, offset: Tensor) -> Tensor:
        """theta + scale u."""
        return theta + offset if isinstance(self.scale, float) else torch.addcmul(theta, self.scale, offset)

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient in u of a loss with this gradient in the weights, which is used up."""
        return gradient if isinstance(self.scale, float) else gradient.mul_(self.scale)


@dataclass(frozen=True)
class Ascent:
    """The end of an ascent from one start.

    Attributes:
        offset: u, (n,), the highest visited point; the center, 0, if no other point is higher; (0,) if given up.
        rise: rise of the loss from the center to the highest point; NaN or infinite if a visited loss is.
        gap: gain in the neighborhood of the linear function with the gradient at the highest point, as a share of the
            rise. It is 0 at a maximum, and NaN if there is no rise.
        is_stationary: whether the gap is at most tol^2, or rounding. A gap of at most tol suffices if steps along the
            gradient no longer lead up. That happens on a ridge of a loss with kinks (ReLU), where the gradient is not
            0.
        first_rise: rise at the start.
        early_rise: rise after `SHORT` gradients, or fewer if the ascent ended before.
        is_finished: whether the ascent went to its end or its last step. A short ascent that may go on did not.
    """

    offset: Tensor
    rise: float
    gap: float
    is_stationary: bool
    first_rise: float
    early_rise: float
    is_finished: bool = True

    @property
    def height(self) -> float:
        """The rise, by which ascents are compared. An ascent that met a NaN is the highest."""
        return math.inf if math.isnan(self.rise) else self.rise

    def without_offset(self) -> Ascent:
        """The same, without the vector."""
        return replace(self, offset=self.offset.new_empty(0))


@dataclass(frozen=True)
class _Visit:
    """A visited point: its gradient, None if it was given up, and the gain that it promises."""

    offset: Tensor
    gradient: Tensor | None
    rise: float
    gain: float


@dataclass(frozen=True)
class Slope:
    """The gradient in u at the center.

    Attributes:
        at_center: gives it, (n,).
        gain: the gain that it promises in the neighborhood.
    """

    at_center: Callable[[], Tensor]
    gain: float


def ascend(
    visit: Callable[[Tensor], tuple[float, Tensor]],
    slope: Slope,
    start: Callable[[], Tensor],
    *,
    neighborhood: Neighborhood,
    steps: int,
    tol: float,
    rounding: float,
    points: int = MOST_POINTS,
) -> Ascent:
    """Climbs from one start to a point of the neighborhood from which no direction leads up.

    Each step goes to the point of the border in the direction of the gradient; in the ball that is
    u <- rho g(u) / ||g(u)||. On a convex loss such a step never descends. In the ball, u and g are taken at the maximum
    of the secant model of the visited points, which makes the ascent as fast as Lanczos' method on a quadratic. After a
    step down, the next step starts from the highest point itself. Then follow projected gradient steps of falling
    length.

    Args:
        visit: u (n,) -> (rise of the loss, its gradient in u).
        slope: the gradient in u at 0.
        start: gives the first u, which is not held longer than needed.
        neighborhood: the ascent stays in it.
        steps: largest number of gradients.
        tol: the ascent ends when the gap is at most tol^2. For a quadratic around its minimum, the residual of the
            eigenvector relative to the eigenvalue is then at most tol.
        rounding: the largest gain that rounding alone can give; such a gain counts as none.
        points: number of points that are remembered, at least 3, each in two vectors. With 0 there is no secant model,
            and the gradient at the highest point is computed anew after a step down: three vectors are held in all.
    """
    model = SecantModel(slope.at_center(), points) if points else None
    visits = 0

    def visited(offset: Tensor) -> _Visit:
        nonlocal visits
        visits += 1
        rise, gradient = visit(offset)
        if model is not None:
            model.add(offset, gradient, rise)
        return _Visit(offset, gradient, rise, neighborhood.gain(gradient, offset))

    def is_within(share: float, at: _Visit) -> bool:
        return at.gain <= share * max(at.rise, 0.0) + rounding

    best = visited(start())
    heights = [best.rise]
    # a step leads to the point nearest to u + g / stiffness; without stiffness, to the border
    stiffness, failures = 0.0, 0
    while (
        visits < steps
        and math.isfinite(best.rise)
        and not is_within(tol**2, best)
        and not _has_stalled(heights, failures, tol)
    ):
        if best.gradient is None:
            best = visited(best.offset)
        goes_far = model is not None and failures == 0 and neighborhood.norm == "l2"
        maximum = model.maximum(neighborhood.rho) if model is not None and goes_far else None
        assert best.gradient is not None
        whole_step = length(best.gradient) / neighborhood.rho
        given_up = best.gradient if model is None else None
        offset = _next_point(best.offset, best.gradient, maximum, neighborhood, stiffness, out=given_up)
        del maximum, given_up
        if model is None:
            best = replace(best, gradient=None)
        trial = visited(offset)
        if not trial.rise <= best.rise:
            best, failures = trial, 0
            stiffness = stiffness / SHORTER if stiffness > 1e-3 * whole_step else 0.0
        else:
            failures += 1
            if failures > 1:
                stiffness = max(SHORTER * stiffness, whole_step, _downward_curvature(best, trial))
        heights.append(best.rise)
        # not held beside the next point
        del offset, trial
    if best.rise < 0:
        best = _Visit(torch.zeros_like(best.offset), None, 0.0, slope.gain)
    return Ascent(
        offset=best.offset,
        rise=best.rise,
        gap=best.gain / best.rise if best.rise > 0 else math.nan,
        is_stationary=math.isfinite(best.rise)
        and is_within(tol if _has_stalled(heights, failures, tol) else tol**2, best),
        first_rise=heights[0],
        early_rise=heights[min(SHORT, len(heights)) - 1],
    )


def _next_point(
    point: Tensor,
    gradient: Tensor,
    model_maximum: tuple[Tensor, Tensor] | None,
    neighborhood: Neighborhood,
    stiffness: float,
    out: Tensor | None,
) -> Tensor:
    """The next point after the highest one and its gradient; in the tensor `out` if given."""
    if model_maximum is not None:
        share = length(model_maximum[0]) / neighborhood.rho
        if share > 1 - INSIDE:
            point, gradient = model_maximum
        elif share > INSIDE:
            return model_maximum[0]
        # otherwise the highest point is the center: the loss falls in all directions that were tried
    if stiffness == 0:
        return neighborhood.border(gradient, out)
    return neighborhood.nearest(torch.add(point, gradient, alpha=1 / stiffness, out=out))


def _has_stalled(heights: list[float], failures: int, tol: float) -> bool:
    """Whether no step leads up any more, or the last steps hardly did."""
    if failures == MOST_FAILURES:
        return True
    lately = heights[-1 - PATIENCE :]
    return len(lately) > PATIENCE and 0 <= lately[-1] - lately[0] < 0.1 * tol * lately[-1]


def _downward_curvature(best: _Visit, trial: _Visit) -> float:
    """The curvature from one point to the other; 0 if a gradient was given up."""
    if best.gradient is None or trial.gradient is None:
        return 0.0
    step = trial.offset - best.offset
    change = best.gradient - trial.gradient
    far = length(step)
    if far == 0:
        return 0.0
    # divided twice, because the square of a length may be 0 or infinite
    return float(dot(change, step)) / far / far
