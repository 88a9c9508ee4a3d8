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
from landscape.slices.measured import Evaluate

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
    """Values at all points of a grid, and their errors."""

    values: Values
    errors: Errors


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
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    low, high = grid.min(0), grid.max(0)
    unit = (grid - low) / (high - low)
    chosen = _start(axes)
    evaluated = np.zeros(len(grid), dtype=bool)
    values: dict[str, FloatArray] = {}
    while len(chosen):
        before = int(evaluated.sum())
        found = evaluate(grid[chosen], partial(_report, progress, before, before + len(chosen)))
        for field in dataclasses.fields(Values):
            of_points = getattr(found, field.name)
            if of_points is not None:
                whole = values.setdefault(field.name, np.full((len(grid), of_points.shape[1]), np.nan))
                whole[chosen] = of_points
        evaluated[chosen] = True
        filled, errors = _interpolated(unit, evaluated, values)
        chosen = _wanted(unit, evaluated, filled["loss"], errors["loss"], tolerance)
    for name, of_points in filled.items():
        known = np.isfinite(of_points) & evaluated[:, None]
        low, high = np.where(known, of_points, np.inf).min(0), np.where(known, of_points, -np.inf).max(0)
        # no accuracy beyond 1, and no loss or standard error below 0
        inside = of_points[~evaluated].clip(low, high)
        errors[name][~evaluated] += np.abs(of_points[~evaluated] - inside)
        of_points[~evaluated] = inside
    return Refined(
        Values(filled["loss"], filled["accuracy"], filled.get("loss_error"), filled.get("rise_error")),
        Errors(evaluated, errors["loss"], errors["accuracy"]),
    )


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _start(axes: tuple[FloatArray, FloatArray]) -> NDArray[np.intp]:
    """A coarse grid that is denser at the edges. It holds the corners, and the model itself if the whole grid does."""
    on_axes = []
    for axis in axes:
        even = np.linspace(0, 1, min(START, len(axis)))
        share = even + TOWARD_ENDS * (0.5 - 0.5 * np.cos(np.pi * even) - even)
        coarse = (share * (len(axis) - 1)).round().astype(int)
        on_axes.append(np.union1d(coarse, np.flatnonzero(axis == 0)))
    return np.array([i * len(axes[1]) + j for i, j in product(*on_axes)])


def _interpolated(
    unit: FloatArray, evaluated: NDArray[np.bool_], values: dict[str, FloatArray]
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
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
        cubic, left_out = _fit(unit[usable], columns[usable], unit[open_], lambda r: r**3)
        thin, _ = _fit(unit[usable], columns[usable], unit[open_], _thin_plate)
        _, nearest = scipy.spatial.KDTree(unit[usable]).query(unit[open_], NEIGHBORS)
        near = _distance_to(unit, usable, open_) <= _distance_to(unit, evaluated, open_)
        filled[open_] = np.where(near[:, None], cubic, np.nan)
        estimate = SAFETY * np.maximum(np.abs(cubic - thin), np.abs(left_out)[nearest].max(1))
        errors[open_] = np.where(near[:, None], estimate, np.nan)
    edges = np.cumsum([0, *(part.shape[1] for part in values.values())])
    bounds = dict(zip(values, pairwise(edges), strict=True))

    def parts(of: FloatArray) -> dict[str, FloatArray]:
        return {name: of[:, start:end] for name, (start, end) in bounds.items()}

    return parts(filled), parts(errors)


def _distance_to(unit: FloatArray, some: NDArray[np.bool_], points: NDArray[np.bool_]) -> FloatArray:
    """The distance of each point to the farthest of its nearest neighbors among some others."""
    distance, _ = scipy.spatial.KDTree(unit[some]).query(unit[points], NEIGHBORS)
    return np.asarray(distance[:, -1])


def _fit(
    at: FloatArray, values: FloatArray, points: FloatArray, basis: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Interpolation with a linear trend: values at the points, and the error at each datum if the datum is left out."""
    n = len(at)
    trend = np.column_stack([np.ones(n), at])
    system = np.zeros((n + 3, n + 3))
    system[:n, :n], system[:n, n:], system[n:, :n] = (
        basis(scipy.spatial.distance.cdist(at, at)),
        trend,
        trend.T,
    )
    inverse = np.linalg.inv(system)
    coefficients = inverse[:, :n] @ values
    rows = np.column_stack([basis(scipy.spatial.distance.cdist(points, at)), np.ones(len(points)), points])
    return rows @ coefficients, coefficients[:n] / inverse.diagonal()[:n, None]


def _thin_plate(distance: FloatArray) -> FloatArray:
    return np.asarray(distance**2 * np.log(np.where(distance > 0, distance, 1)))


def _wanted(
    unit: FloatArray,
    evaluated: NDArray[np.bool_],
    loss: FloatArray,
    errors: FloatArray,
    tolerance: float,
) -> NDArray[np.intp]:
    """The points to evaluate next: those whose errors exceed the tolerance most, spread over the plane."""
    finite = np.where(np.isfinite(loss), loss, np.nan)
    known = finite[evaluated]
    missing = np.isnan(known)
    # values that are not finite do not enter the range
    low, high = np.where(missing, np.inf, known).min(0), np.where(missing, -np.inf, known).max(0)
    spread = np.maximum(high - low, 0)
    allowed = tolerance * np.minimum(spread, LOCAL * np.maximum(np.abs(finite), FLOOR * spread))
    # the rounding of a constant is no error
    allowed = np.maximum(allowed, 1e-7 * np.abs(np.nan_to_num(known)).max(0))
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
    for _ in range(max(ROUND, int(evaluated.sum()) // 4)):
        best = int(excess.argmax())
        if excess[best] <= 1:
            break
        chosen.append(best)
        near = np.abs(unit - unit[best]).max(1) < apart
        excess[near & np.isfinite(excess)] *= 0.3
        excess[best] = 0
    return np.sort(np.array(chosen, dtype=np.intp))
