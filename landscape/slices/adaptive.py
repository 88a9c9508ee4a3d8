"""A surface from some of its points: more points are evaluated until all estimated errors are small.

Between the evaluated points, the losses or their logarithms are interpolated (`landscape.slices.interpolation`,
`landscape.slices.loss_scale`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from landscape.evaluation.evaluator import Values
from landscape.progress import Progress
from landscape.results.fields import FloatArray
from landscape.slices.interpolation import Fields, interpolated
from landscape.slices.levels import Evaluate
from landscape.slices.loss_scale import LOG, LossScale

START = 7
"""Number of points on each axis at the beginning."""

ROUND = 10
"""Least number of points that are evaluated before the interpolation is made again."""

GROWTH = 0.1
"""As many points are evaluated at a time at least, in those that were evaluated before."""

TOWARD_ENDS = 0.6
"""The spacing of the first points, from even (0) to Chebyshev's (1). Near the borders interpolation is worst, and its
estimates are too small. With even spacing and the same number of points, the allowed error was exceeded by 17% on one
in six rotations of a surface with two basins."""

BEYOND = 10.0
"""An interpolated loss may lie outside the range of the evaluated ones. Its error then counts as at least this multiple
of the distance to the range, so that the bottom of a basin is evaluated and not cut off."""


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

    @property
    def scale(self) -> LossScale:
        """The range of the evaluated losses."""
        return LossScale.of(self.values["loss"][self.evaluated])

    def on(self, scale: LossScale) -> Fields:
        """The values, with the logarithms of the losses on a scale."""
        return {**self.values, LOG: scale.logarithm(self.values["loss"])}

    def interpolated(self) -> tuple[Fields, Fields]:
        """The values at all points, and their estimated errors."""
        scale = self.scale
        return scale.back(*interpolated(self.unit, self.evaluated, self.on(scale)))

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
    # values that are not finite do not enter the range
    scale = LossScale.of(finite[evaluated])
    low, high = scale.low, scale.low + scale.spread
    allowed = scale.allowed(finite, tolerance)
    # the rounding of a constant is no error
    allowed = np.maximum(allowed, 1e-7 * np.abs(np.nan_to_num(finite[evaluated])).max(0))
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
    for _ in range(max(least, int(GROWTH * evaluated.sum()))):
        best = int(excess.argmax())
        if excess[best] <= 1:
            break
        chosen.append(best)
        near = np.abs(unit - unit[best]).max(1) < apart
        excess[near & np.isfinite(excess)] *= 0.3
        excess[best] = 0
    return np.sort(np.array(chosen, dtype=np.intp))
