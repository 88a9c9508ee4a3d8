"""Both answers of a mean over places, which are cells or series of cells: of these cells, and of data like these."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.cells import Cells
from analysis.statistics.finding import LIKE_THESE, THESE, Finding, Part, Region, Test
from analysis.statistics.freedom import shared_freedom
from analysis.statistics.resampling import Values
from analysis.statistics.reversal import dependent_reversal_p, reversal_p
from analysis.statistics.shared_draws import Codes, Shared, independent
from analysis.statistics.student import student, student_interval
from analysis.statistics.without_spread import Signs, opposite_signs_p


def judged_by_cells(
    cells: Cells,
    weights: Values,
    belongs: NDArray[np.bool_],
    names: list[str],
    *,
    shared: Shared,
    means: bool,
    place: str = "cells",
    counted: str = "pairs",
    null: Region = (0.0, 0.0),
    margin: float = np.nan,
) -> Finding:
    """The mean over places of weighted sums of cell means: answers to both questions, each place, and reversal.

    Args:
        cells: the cells.
        weights: float64 (places, cells), the weights of the cell means in the number of each place. The identity if the
            places are the cells. The cells of a place are of one data set.
        belongs: bool (places, cells), whether a cell is of a place. The weights cannot say it: that of the middle level
            of a slope is 0.
        names: names of the places.
        shared: the values of the cells, the draws that they share, and their data sets.
        means: whether the places are the cells, so that a sign test is possible where the values have no spread.
        place: word for the places.
        counted: word for the values within the cells.
        null: values that the null hypothesis allows.
        margin: the smallest number that matters.
    """
    numbers = weights @ cells.means
    behind, shares = independent(cells, weights.mean(0), shared)
    signs = Signs(behind.means, int(behind.counts.min()) if means else 0, _size(shares, behind.means))
    counted_here = "seeds" if shared.is_any else counted
    these = _of_these(behind, shares, signs=signs, counted=counted_here, null=null, margin=margin)
    errors = np.sqrt(weights**2 @ (np.maximum(cells.variances, cells.pooled) / cells.counts))
    if these.is_without_spread:
        errors = np.zeros_like(errors)
        reversal = opposite_signs_p(numbers, cells.counts, signs.rounding) if means else np.nan
    else:
        reversal = (dependent_reversal_p if shared.is_any else reversal_p)(numbers, errors, cells.freedom)
    samples = belongs @ cells.counts
    parts = [
        Part(name, float(number), *student_interval(float(number), float(error), cells.freedom), int(count))
        for name, number, error, count in zip(names, numbers, errors, samples, strict=True)
    ]
    of_data_sets = means_of(numbers, shared.units[belongs.argmax(1)])
    return Finding(
        these,
        over_data_sets(of_data_sets, null=null, margin=margin),
        places=len(numbers),
        place=place,
        parts=tuple(parts) if len(parts) > 1 else (),
        reversal_p=reversal,
        data_sets=len(of_data_sets),
    )


def _size(weights: Values, numbers: Values) -> float:
    """The size of the terms of a weighted sum, to which its rounding is proportional."""
    return float(np.abs(weights) @ np.abs(numbers))


def _of_these(
    cells: Cells, weights: Values, *, signs: Signs, counted: str, null: Region, margin: float
) -> Test:
    """Student's t with the variance within each cell."""
    shares = weights**2 * cells.variances / cells.counts
    total = float(shares.sum())
    freedom = cells.freedom
    if total > 0 and np.isfinite(total):
        freedom = shared_freedom(shares, cells.freedoms)
    return student(
        THESE,
        float(weights @ cells.means),
        total**0.5,
        freedom,
        units=int(cells.counts.sum()),
        counted=counted,
        method="t test within cells",
        signs=signs,
        null=null,
        margin=margin,
    )


def means_of(numbers: Values, groups: Codes) -> Values:
    """The mean of the numbers of each group, float64 (groups,)."""
    index = np.unique(groups, return_inverse=True)[1]
    return np.asarray(np.bincount(index, numbers) / np.bincount(index))


def over_data_sets(numbers: Values, *, null: Region = (0.0, 0.0), margin: float = np.nan) -> Test:
    """Student's t test over data sets, float64 (data sets,); each data set is one value of the population."""
    return over_units(LIKE_THESE, numbers, "data sets", null=null, margin=margin)


def over_units(
    estimand: str, numbers: Values, counted: str, *, null: Region = (0.0, 0.0), margin: float = np.nan
) -> Test:
    """Student's t test over independent numbers, float64 (units,).

    Args:
        estimand: `THESE` or `LIKE_THESE`.
        numbers: the numbers.
        counted: word for the units.
        null: values that the null hypothesis allows.
        margin: the smallest number that matters.
    """
    count = len(numbers)
    return student(
        estimand,
        float(numbers.mean()) if count else np.nan,
        float(numbers.std(ddof=1) / count**0.5) if count > 1 else np.nan,
        count - 1,
        units=count,
        counted=counted,
        method=f"t test over {counted}",
        signs=Signs(numbers, count, float(np.abs(numbers).mean())),
        null=null,
        margin=margin,
    )
