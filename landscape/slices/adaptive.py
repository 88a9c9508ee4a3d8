"""A surface from some of its points: more points are evaluated until all estimated errors are small.

Cubic radial basis functions interpolate between the evaluated points. Two estimates of the error are made at each
point, and the larger one counts. The first is the error at the nearest evaluated points when each is left out
(Rippa 1999), which needs no further solution of a linear system. The second is the difference to an interpolation by
thin plate splines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import numpy as np
import scipy
from numpy.typing import NDArray

from landscape.evaluation.evaluator import Values
from landscape.progress import Progress
from landscape.results.fields import FloatArray
from landscape.slices.levels import Evaluate

START = 9
"""Number of points on each axis at the beginning."""

ROUND = 24
"""Least number of points that are evaluated before the interpolation is made again."""

LOCAL = 5
"""Largest error of a value relative to the value, in tolerances. Without it, large values far away hide a basin."""

FLOOR = 0.02
"""For the rule of `LOCAL`, a value below this share of the range counts as this share."""

TOWARD_ENDS = 0.6
"""The spacing of the first points, from even (0) to Chebyshev's (1). Near the borders interpolation is worst, and its
estimates are too small. With even spacing and the same number of points, the allowed error was exceeded by 17% on one
in six rotations of a surface with two basins."""

SAFETY = 2.0
"""Factor on the estimates. Without it errors were up to a third larger than estimated, on surfaces with a narrow basin
or valley."""

BEYOND = 10.0
"""An interpolated loss may lie outside the range of the evaluated ones. Its error then counts as at least this multiple
of the distance to the range, so that the bottom of a basin is evaluated and not cut off."""

NEIGHBORS = 3

Fields = dict[str, FloatArray]
"""Field of `Values` -> (points, losses)."""


@dataclass(frozen=True)
class Errors:
    """The estimated errors of a refined surface.

    Attributes:
        evaluated: whether a point was evaluated rather than interpolated, (points,).
        loss: estimated error of the loss, (points, losses); 0 where the loss was evaluated.
        accuracy: estimated error of the accuracy, (points, losses).
    """

    evaluated: NDArray[np.bool_]
    loss: FloatArray
    accuracy: FloatArray


@dataclass(frozen=True)
class Refined:
    """Values at all points of a grid.

    Attributes:
        values: evaluated or interpolated.
        errors: of the interpolated values; None if all were evaluated.
        on_part: whether a point was evaluated on a part of the samples, (points,); None without a part.
    """

    values: Values
    errors: Errors | None = None
    on_part: NDArray[np.bool_] | None = None


def refined(
    evaluate: Evaluate, axes: tuple[FloatArray, FloatArray], tolerance: float, progress: Progress
) -> Refined:
    """Values on a grid. Points are evaluated until the estimated error of the loss is small at all other points.

    The allowed error is `tolerance` times the range of the loss. It is also at most `LOCAL` times `tolerance` times the
    loss at the point; a loss below `FLOOR` times the range counts as `FLOOR` times the range. All points near a loss
    that is not finite are evaluated. The accuracy, a step function of the weights, is interpolated at the same points.
    Its error is estimated too, but no points are evaluated because of it.

    Args:
        evaluate: multiples (points, 2) -> values at the points.
        axes: the multiples on each axis, ascending.
        tolerance: largest error relative to the range, see above.
        progress: called with the points done and the points in all, as far as these are known.
    """
    known = Known(axes)
    chosen = first_points(axes, START)
    while len(chosen):
        known.evaluate(evaluate, chosen, partial(report, progress, known.count, known.count + len(chosen)))
        filled, errors = known.interpolated()
        chosen = wanted(known, filled["loss"], errors["loss"], tolerance, ROUND)
    return known.finished(filled, errors)


class Known:
    """The values at those points of a grid that were evaluated so far.

    Args:
        axes: the multiples on each axis, ascending.

    Attributes:
        unit: the grid's points, scaled to the unit square, (points, 2).
        evaluated: whether a point was evaluated, (points,).
        values: each field of `Values` that was evaluated, (points, losses); NaN at the other points.
    """

    def __init__(self, axes: tuple[FloatArray, FloatArray]) -> None:
        self._grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        low, high = self._grid.min(0), self._grid.max(0)
        self.unit = (self._grid - low) / (high - low)
        self.evaluated = np.zeros(len(self._grid), dtype=bool)
        self.values: Fields = {}

    @property
    def count(self) -> int:
        """Number of points that were evaluated."""
        return int(self.evaluated.sum())

    def evaluate(self, evaluate: Evaluate, chosen: NDArray[np.intp], progress: Callable[[int], None]) -> None:
        """Evaluates the chosen points, and keeps their values."""
        found = evaluate(self._grid[chosen], progress)
        for field in dataclasses.fields(Values):
            of_points = getattr(found, field.name)
            if of_points is not None:
                empty = np.full((len(self.unit), of_points.shape[1]), np.nan)
                self.values.setdefault(field.name, empty)[chosen] = of_points
        self.evaluated[chosen] = True

    def interpolated(self) -> tuple[Fields, Fields]:
        """The values at all points, and their estimated errors; see `interpolated`."""
        return interpolated(self.unit, self.evaluated, self.values)

    def finished(self, filled: Fields, errors: Fields) -> Refined:
        """The result: no interpolated value lies outside the range of the evaluated ones.

        There is no accuracy beyond 1, and no loss or standard error below 0.
        """
        there = ~self.evaluated
        for name, of_points in filled.items():
            known = np.isfinite(of_points) & self.evaluated[:, None]
            low, high = np.where(known, of_points, np.inf).min(0), np.where(known, of_points, -np.inf).max(0)
            inside = of_points[there].clip(low, high)
            errors[name][there] += np.abs(of_points[there] - inside)
            of_points[there] = inside
        return Refined(
            Values(filled["loss"], filled["accuracy"], filled.get("loss_error"), filled.get("rise_error")),
            Errors(self.evaluated, errors["loss"], errors["accuracy"]),
        )


def report(progress: Progress, before: int, total: int, done: int) -> None:
    """Tells the progress after some of the points that are evaluated together."""
    progress(before + done, total)


def first_points(axes: tuple[FloatArray, FloatArray], count: int) -> NDArray[np.intp]:
    """A coarse grid with `count` points on each axis, denser at the edges.

    It holds the corners, and the model itself if the whole grid does.
    """
    on_axes = []
    for axis in axes:
        even = np.linspace(0, 1, min(count, len(axis)))
        share = even + TOWARD_ENDS * (0.5 - 0.5 * np.cos(np.pi * even) - even)
        coarse = (share * (len(axis) - 1)).round().astype(int)
        on_axes.append(np.union1d(coarse, np.flatnonzero(axis == 0)))
    return np.array([i * len(axes[1]) + j for i, j in product(*on_axes)])


def interpolated(unit: FloatArray, evaluated: NDArray[np.bool_], values: Fields) -> tuple[Fields, Fields]:
    """All values, interpolated where they were not evaluated, and their estimated errors; NaN near non-finite ones."""
    columns = np.concatenate(list(values.values()), 1)
    # accuracies without classes are NaN everywhere, and must not exclude points
    numbers = ~np.isnan(columns[evaluated]).all(0)
    usable = evaluated & numbers.any() & np.isfinite(columns[:, numbers]).all(1)
    filled, errors = columns.copy(), np.full(columns.shape, np.nan)
    errors[evaluated] = 0
    open_ = ~evaluated
    # points on a line determine no linear trend; then nothing is interpolated, and all points are evaluated
    trend = np.column_stack([np.ones(usable.sum()), unit[usable]])
    if open_.any() and usable.sum() > 3 and np.linalg.matrix_rank(trend) == 3:
        fit = partial(_fit, unit[usable], columns[usable], unit[open_])
        distances = [
            scipy.spatial.distance.cdist(points, unit[usable]) for points in (unit[usable], unit[open_])
        ]
        cubic, left_out = fit(*(distance**3 for distance in distances))
        thin, _ = fit(*map(_thin_plate, distances))
        _, nearest = scipy.spatial.KDTree(unit[usable]).query(unit[open_], NEIGHBORS)
        near = _distance_to(unit, usable, open_) <= _distance_to(unit, evaluated, open_)
        filled[open_] = np.where(near[:, None], cubic, np.nan)
        estimate = SAFETY * np.maximum(np.abs(cubic - thin), np.abs(left_out)[nearest].max(1))
        errors[open_] = np.where(near[:, None], estimate, np.nan)
    edges = np.cumsum([0, *(part.shape[1] for part in values.values())])
    bounds = dict(zip(values, pairwise(edges), strict=True))

    def parts(of: FloatArray) -> Fields:
        return {name: of[:, start:end] for name, (start, end) in bounds.items()}

    return parts(filled), parts(errors)


def _distance_to(unit: FloatArray, some: NDArray[np.bool_], points: NDArray[np.bool_]) -> FloatArray:
    """The distance of each point to the farthest of its nearest neighbors among some others."""
    distance, _ = scipy.spatial.KDTree(unit[some]).query(unit[points], NEIGHBORS)
    return np.asarray(distance[:, -1])


def _fit(
    at: FloatArray, values: FloatArray, points: FloatArray, of_data: FloatArray, of_points: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Interpolation with a linear trend: values at the points, and the error at each datum if the datum is left out.

    Args:
        at: places of the data, (data, 2).
        values: the data, (data, columns).
        points: where to interpolate, (points, 2).
        of_data: the basis functions, one for each datum, at the data, (data, data).
        of_points: the basis functions at the points, (points, data).
    """
    n = len(at)
    trend = np.column_stack([np.ones(n), at])
    system = np.zeros((n + 3, n + 3))
    system[:n, :n], system[:n, n:], system[n:, :n] = (
        of_data,
        trend,
        trend.T,
    )
    inverse = np.linalg.inv(system)
    coefficients = inverse[:, :n] @ values
    rows = np.column_stack([of_points, np.ones(len(points)), points])
    return rows @ coefficients, coefficients[:n] / inverse.diagonal()[:n, None]


def _thin_plate(distance: FloatArray) -> FloatArray:
    return np.asarray(distance**2 * np.log(np.where(distance > 0, distance, 1)))


def wanted(
    known: Known, loss: FloatArray, errors: FloatArray, tolerance: float, least: int
) -> NDArray[np.intp]:
    """The points to evaluate next: those whose errors exceed the tolerance most, spread over the plane.

    Args:
        known: the points that were evaluated.
        loss: of all points, (points, losses).
        errors: estimated errors of the loss.
        tolerance: see `refined`.
        least: that many points are wanted at least, if so many exceed the tolerance.
    """
    unit, evaluated = known.unit, known.evaluated
    finite = np.where(np.isfinite(loss), loss, np.nan)
    there = finite[evaluated]
    missing = np.isnan(there)
    # values that are not finite do not enter the range
    low, high = np.where(missing, np.inf, there).min(0), np.where(missing, -np.inf, there).max(0)
    spread = np.maximum(high - low, 0)
    allowed = tolerance * np.minimum(spread, LOCAL * np.maximum(np.abs(finite), FLOOR * spread))
    # the rounding of a constant is no error
    allowed = np.maximum(allowed, 1e-7 * np.abs(np.nan_to_num(there)).max(0))
    beyond = np.maximum(np.maximum(low - finite, finite - high), 0)
    errors = np.maximum(errors, BEYOND * beyond)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(errors == 0, 0, errors / allowed)
    excess = np.where(np.isnan(excess), np.inf, excess).max(1)
    excess[evaluated] = 0
    asking = np.flatnonzero(excess > 1)
    if 2 * evaluated.sum() > len(unit):
        # evaluating the rest is cheaper than choosing from it
        return asking
    apart = 0.5 / np.sqrt(evaluated.sum())
    chosen: list[int] = []
    for _ in range(max(least, int(evaluated.sum()) // 4)):
        best = int(excess.argmax())
        if excess[best] <= 1:
            break
        chosen.append(best)
        near = np.abs(unit - unit[best]).max(1) < apart
        excess[near & np.isfinite(excess)] *= 0.3
        excess[best] = 0
    return np.sort(np.array(chosen, dtype=np.intp))
