"""The largest rise of a loss within a neighborhood of the weights, by ascents that say whether they converged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.perturbations.secant_model import SecantModel

NORMS = ("l2", "linf")
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

    def border(self, direction: Tensor) -> Tensor:
        """The point of the border at which a linear function with this gradient is largest; 0 if the gradient is 0."""
        if self.norm == "linf":
            return direction.sign() * self.rho
        length = torch.linalg.vector_norm(direction)
        return direction * torch.where(length == 0, torch.zeros_like(length), self.rho / length)

    def nearest(self, point: Tensor) -> Tensor:
        """The nearest point of the neighborhood."""
        if self.norm == "linf":
            return point.clamp(-self.rho, self.rho)
        length = torch.linalg.vector_norm(point)
        return point * torch.where(length > self.rho, self.rho / length, torch.ones_like(length))

    def gain(self, gradient: Tensor, point: Tensor) -> float:
        """The largest value of a linear function with this gradient in the neighborhood, minus its value at `point`."""
        gradient, point = gradient.double(), point.double()
        order = 1 if self.norm == "linf" else 2
        return float(self.rho * torch.linalg.vector_norm(gradient, order) - gradient @ point)


@dataclass(frozen=True)
class Ascent:
    """The end of an ascent from one start.

    Attributes:
        offset: u, (n,), the highest visited point; the center, 0, if no other point is higher.
        rise: rise of the loss from the center to the highest point; NaN or infinite if a visited loss is.
        gap: gain in the neighborhood of the linear function with the gradient at the highest point, as a share of the
            rise. It is 0 at a maximum, and NaN if there is no rise.
        is_stationary: whether the gap is at most tol^2, or rounding. A gap of at most tol suffices if steps along the
            gradient no longer lead up. That happens on a ridge of a loss with kinks (ReLU), where the gradient is not
            0.
        first_rise: rise at the start.
    """

    offset: Tensor
    rise: float
    gap: float
    is_stationary: bool
    first_rise: float


@dataclass(frozen=True)
class _Visit:
    offset: Tensor
    gradient: Tensor
    rise: float


def ascend(
    visit: Callable[[Tensor], tuple[float, Tensor]],
    slope: Tensor,
    start: Tensor,
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
        slope: gradient in u at 0.
        start: the first u.
        neighborhood: the ascent stays in it.
        steps: largest number of gradients.
        tol: the ascent ends when the gap is at most tol^2. For a quadratic around its minimum, the residual of the
            eigenvector relative to the eigenvalue is then at most tol.
        rounding: the largest gain that rounding alone can give; such a gain counts as none.
        points: number of points that are remembered, at least 3. Each takes two vectors.
    """

    def visited(offset: Tensor) -> _Visit:
        rise, gradient = visit(offset)
        model.add(offset, gradient, rise)
        return _Visit(offset, gradient, rise)

    def left(at: _Visit) -> float:
        return neighborhood.gain(at.gradient, at.offset)

    def is_within(share: float, at: _Visit) -> bool:
        return left(at) <= share * max(at.rise, 0.0) + rounding

    model = SecantModel(slope, points)
    model.add(torch.zeros_like(slope), slope, 0.0)
    best = visited(start)
    heights = [best.rise]
    # a step leads to the point nearest to u + g / stiffness; without stiffness, to the border
    stiffness, failures = 0.0, 0
    while (
        len(heights) < steps
        and math.isfinite(best.rise)
        and not is_within(tol**2, best)
        and not _has_stalled(heights, failures, tol)
    ):
        model_maximum = (
            model.maximum(neighborhood.rho) if failures == 0 and neighborhood.norm == "l2" else None
        )
        trial = visited(_next_point(best, model_maximum, neighborhood, stiffness))
        whole_step = float(torch.linalg.vector_norm(best.gradient)) / neighborhood.rho
        if not trial.rise <= best.rise:
            best, failures = trial, 0
            stiffness = stiffness / SHORTER if stiffness > 1e-3 * whole_step else 0.0
        else:
            failures += 1
            if failures > 1:
                stiffness = max(SHORTER * stiffness, whole_step, _downward_curvature(best, trial))
        heights.append(best.rise)
    if best.rise < 0:
        best = _Visit(torch.zeros_like(slope), slope, 0.0)
    return Ascent(
        offset=best.offset,
        rise=best.rise,
        gap=left(best) / best.rise if best.rise > 0 else math.nan,
        is_stationary=math.isfinite(best.rise)
        and is_within(tol if _has_stalled(heights, failures, tol) else tol**2, best),
        first_rise=heights[0],
    )


def _next_point(
    best: _Visit, model_maximum: tuple[Tensor, Tensor] | None, neighborhood: Neighborhood, stiffness: float
) -> Tensor:
    point, gradient = best.offset, best.gradient
    if model_maximum is not None:
        length = float(torch.linalg.vector_norm(model_maximum[0])) / neighborhood.rho
        if length > 1 - INSIDE:
            point, gradient = model_maximum
        elif length > INSIDE:
            return model_maximum[0]
        # otherwise the highest point is the center: the loss falls in all directions that were tried
    if stiffness == 0:
        return neighborhood.border(gradient)
    return neighborhood.nearest(point + gradient / stiffness)


def _has_stalled(heights: list[float], failures: int, tol: float) -> bool:
    """Whether no step leads up any more, or the last steps hardly did."""
    if failures == MOST_FAILURES:
        return True
    lately = heights[-1 - PATIENCE :]
    return len(lately) > PATIENCE and 0 <= lately[-1] - lately[0] < 0.1 * tol * lately[-1]


def _downward_curvature(best: _Visit, trial: _Visit) -> float:
    step = trial.offset - best.offset
    length = float(step @ step)
    return float((best.gradient - trial.gradient) @ step) / length if length > 0 else 0.0


@dataclass(frozen=True)
class Search:
    """Ascents from several starts.

    Attributes:
        ascents: the ascents; that from the gradient's direction is the first.
        tol: relative accuracy that was asked for.
        rounding: the largest difference of two losses that rounding alone can give.
    """

    ascents: list[Ascent]
    tol: float
    rounding: float

    @property
    def highest(self) -> Ascent:
        """The ascent with the largest rise. An ascent that met a NaN comes first."""
        return max(self.ascents, key=lambda each: math.inf if math.isnan(each.rise) else each.rise)

    @property
    def spread(self) -> float:
        """Difference of the two highest rises, as a share of the highest; NaN for one ascent."""
        if len(self.ascents) < 2:
            return math.nan
        second, first = sorted(each.rise for each in self.ascents)[-2:]
        return 0.0 if first - second <= self.rounding else (first - second) / first

    @property
    def converged(self) -> bool:
        """Whether the highest point is stationary, and another ascent came within `tol` of its height."""
        return self.highest.is_stationary and self.spread <= self.tol


def search(
    objective: Objective,
    center: Tensor,
    gradient: Tensor,
    neighborhood: Neighborhood,
    *,
    steps: int,
    restarts: int,
    tol: float,
    seed: int,
    directions: Tensor | None = None,
    spend: Callable[[int], None] = lambda _: None,
) -> Search:
    """Ascents from the gradient's direction, given directions and random points, until the highest point is confirmed.

    Loss landscapes have several maxima on the border. The maxima to which the gradient and random starts lead are often
    not the highest. So both signs of each given direction are always starts. Afterward, random starts alternate with
    starts that lie 45 degrees away from the highest point. If such a start leads back, the highest point is confirmed.
    If it leads higher, the search continues from there (basin hopping, Wales and Doye 1997).

    Args:
        objective: its loss is maximized.
        center: the loss at the objective's weights.
        gradient: the gradient at the objective's weights, (n,).
        neighborhood: a neighborhood of these weights.
        steps: largest number of gradients in an ascent.
        restarts: largest number of random starts.
        tol: see `ascend`. Two heights agree if they differ by at most this share.
        seed: seed of the random starts.
        directions: directions of u, such as top eigenvectors, (n, k).
        spend: called with the number of gradients after each.
    """
    scale = neighborhood.scale
    rounding = 8 * torch.finfo(objective.dtype).eps * abs(float(center))

    def visit(offset: Tensor) -> tuple[float, Tensor]:
        loss, slope = objective.value_and_gradient(objective.theta + scale * offset)
        spend(1)
        return float(loss - center), scale * slope

    slope = scale * gradient
    climb = partial(
        ascend,
        visit,
        slope,
        neighborhood=neighborhood,
        steps=steps,
        tol=tol,
        rounding=rounding,
        points=max(3, min(MOST_POINTS, objective.memory_budget // (2 * objective.theta.nbytes))),
    )
    result = Search(
        [climb(start) for start in _planned_starts(slope, neighborhood, directions)], tol, rounding
    )
    generator = torch.Generator(objective.device).manual_seed(seed)
    for index in range(restarts):
        if not math.isfinite(result.highest.rise) or (result.converged and len(result.ascents) > 1):
            break
        draw = torch.randn(len(slope), dtype=slope.dtype, device=slope.device, generator=generator)
        start = neighborhood.border(draw)
        highest = neighborhood.border(result.highest.offset)
        if index % 2 == 0 and bool(highest.any()):
            # random directions of many weights are orthogonal, so that the sum lies halfway
            start = neighborhood.border(start + highest)
        result = Search([*result.ascents, climb(start)], tol, rounding)
    return result


def _planned_starts(slope: Tensor, neighborhood: Neighborhood, directions: Tensor | None) -> Iterator[Tensor]:
    yield neighborhood.border(slope)
    if directions is not None:
        for direction in directions.to(slope).T:
            start = neighborhood.border(direction)
            yield start
            yield -start
