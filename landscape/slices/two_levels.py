"""A surface of all samples with the help of a random part of them: its shape from the part, a correction from all.

The loss of a part costs little, and resembles that of all samples. The surface of the part is interpolated between many
points, the difference of the two between few points. The estimated error of the sum is the sum of both estimates
(`landscape.slices.adaptive`), and more points are evaluated until the sum is within the tolerance: on the part alone
where most of the error is that of the part, else on all samples too.

Where the points on all samples alone promise a smaller error, they are interpolated without the part. So a part that
does not resemble the whole costs its own evaluations, and hardly more.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landscape.progress import Progress
from landscape.results.fields import FloatArray
from landscape.slices.adaptive import (
    Known,
    Refined,
    first_points,
    report,
    wanted,
)
from landscape.slices.interpolation import Fields, interpolated
from landscape.slices.levels import Evaluate, on_level
from landscape.slices.loss_scale import LOG

FIRST = 5
"""Number of points on each axis at which all samples are evaluated at the beginning. They are among the part's."""

PART_START = 9
"""The same for the part."""

ROUND = 5
"""Least number of points that are evaluated before the interpolation is made again."""

PART_FIRST = 0.5
"""A point is evaluated on the part alone if the part's error exceeds this multiple of the error of the difference. With
0.25 and with 1, surfaces of five networks cost as much or more."""


def refined_with_part(
    evaluate: Evaluate, axes: tuple[FloatArray, FloatArray], tolerance: float, progress: Progress
) -> Refined:
    """Values on a grid; `landscape.slices.adaptive.refined` says which errors are allowed.

    Points near a loss that is not finite, on all samples or on the part, are all evaluated on all samples.

    Args:
        evaluate: points of `Levels` -> values at the points.
        axes: the multiples on each axis, ascending.
        tolerance: largest error relative to the range.
        progress: called with the points done on both levels and the points in all, as far as these are known.
    """
    whole, part = Known(axes), Known(axes)
    on_all = first_points(axes, FIRST)
    on_part = np.union1d(on_all, first_points(axes, PART_START))
    while len(on_all) + len(on_part):
        done = whole.count + part.count
        total = done + len(on_all) + len(on_part)
        for level, (known, chosen) in enumerate(((whole, on_all), (part, on_part))):
            if len(chosen):
                before = whole.count + part.count
                known.evaluate(on_level(evaluate, level), chosen, partial(report, progress, before, total))
        filled, errors, of_part = _sum(whole, part)
        chosen = wanted(whole, filled["loss"], errors["loss"], tolerance, ROUND)
        on_part = chosen[~part.evaluated[chosen]]
        on_all = chosen[~of_part[chosen]]
    return dataclasses.replace(whole.finished(filled, errors), on_part=part.evaluated)


def _sum(whole: Known, part: Known) -> tuple[Fields, Fields, NDArray[np.bool_]]:
    """The values at all points, their estimated errors, and where a point on the part alone makes the error smaller.

    All points that were evaluated on all samples were evaluated on the part too.
    """
    scale = whole.scale
    of_whole, of_part = whole.on(scale), part.on(scale)
    shape, shape_errors = interpolated(part.unit, part.evaluated, of_part)
    with np.errstate(invalid="ignore"):
        rests = {_rest(name): of_points - of_part[name] for name, of_points in of_whole.items()}
    both, both_errors = interpolated(whole.unit, whole.evaluated, {**of_whole, **rests})
    filled = {name: both[name] for name in of_whole}
    errors = {name: both_errors[name] for name in of_whole}
    there = ~whole.evaluated[:, None]
    for name, of_points in filled.items():
        error = shape_errors[name] + both_errors[_rest(name)]
        better = there & (error < errors[name])
        of_points[better] = (shape[name] + both[_rest(name)])[better]
        errors[name][better] = error[better]
        # where the part diverges, all samples do, whatever the other points promise
        measured = ~np.isnan(of_part[name][part.evaluated]).all(0)
        errors[name][there & measured & ~np.isfinite(shape[name])] = np.nan
    most = shape_errors[LOG] > PART_FIRST * both_errors[_rest(LOG)]
    return *scale.back(filled, errors), most.any(1) & ~part.evaluated


def _rest(name: str) -> str:
    """The name of a field's difference: all samples less the part."""
    return f"{name} less the part's"
