"""Cells. A cell is a data set with a kind and a rate of noise; its seeds repeat one measurement.

The seeds of a cell share one choice of hyper-parameters, so that the cell is the independent unit. Two questions have
different answers. What is true of these cells? Only the spread of seeds within cells makes the answer uncertain. What
is true of cells like these? The spread between cells makes the answer uncertain, and more seeds do not help.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.finding import LIKE_THESE, THESE, Finding, Part, Region, Test
from analysis.statistics.resampling import Values
from analysis.statistics.student import student, student_interval
from analysis.statistics.without_spread import Signs, opposite_signs_p


@dataclass(frozen=True)
class Cells:
    """The means of cells and the spread within them.

    Attributes:
        labels: labels of the cells.
        means: float64 (cells,), mean of each cell.
        counts: float64 (cells,), number of values in each cell.
        variances: float64 (cells,), variance of one value within its cell. Cells of one value have the pooled variance.
        freedoms: float64 (cells,), degrees of freedom of the variances.
        pooled: the variance of one value within its cell, over all cells; NaN if none has two values.
        freedom: degrees of freedom of the pooled variance.
    """

    labels: list[str]
    means: Values
    counts: Values
    variances: Values
    freedoms: Values
    pooled: float
    freedom: float


def cells_of(labels: ArrayLike, values: ArrayLike) -> Cells:
    """The cells of finite values, each of which has a label."""
    names, where = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    return cells_at(names.tolist(), where, np.asarray(values, dtype=np.float64))


def cells_at(names: list[str], where: NDArray[np.int64], numbers: Values) -> Cells:
    """The cells with these names, in any order. Each finite value lies in the cell of its index in `where`."""
    counts = np.bincount(where).astype(np.float64)
    # sorted, so that the sum does not depend on the order of the values
    order = np.lexsort((numbers, where))
    means = np.bincount(where[order], numbers[order]) / counts
    squares = np.bincount(where[order], (numbers[order] - means[where[order]]) ** 2)
    repeated = counts > 1
    variances = np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=repeated)
    freedom = float((counts - 1).sum())
    pooled = float(((counts - 1)[repeated] * variances[repeated]).sum() / freedom) if freedom else np.nan
    return Cells(
        names,
        means,
        counts,
        np.where(repeated, variances, pooled),
        np.where(repeated, counts - 1, freedom),
        pooled,
        freedom,
    )


def judged_by_cells(
    cells: Cells,
    weights: Values,
    names: list[str],
    *,
    means: bool,
    place: str = "cells",
    counted: str = "pairs",
    null: Region = (0.0, 0.0),
    margin: float = np.nan,
    lost: int = 0,
) -> Finding:
    """The mean over places of weighted sums of cell means: answers to both questions, each place, and reversal.

    Args:
        cells: the cells.
        weights: float64 (places, cells), the weights of the cell means in the number of each place. The identity if the
            places are the cells.
        names: names of the places.
        means: whether the places are the cells, so that a sign test is possible where the values have no spread.
        place: word for the places.
        counted: word for the values within the cells.
        null: values that the null hypothesis allows.
        margin: the smallest number that matters.
        lost: number of values that could not enter.
    """
    numbers = weights @ cells.means
    signs = Signs(cells.means, int(cells.counts.min()) if means else 0, _size(weights.mean(0), cells.means))
    these = _of_these(cells, weights.mean(0), signs=signs, counted=counted, null=null, margin=margin)
    errors = np.sqrt(weights**2 @ (np.maximum(cells.variances, cells.pooled) / cells.counts))
    if these.is_without_spread:
        errors = np.zeros_like(errors)
        reversal = opposite_signs_p(numbers, cells.counts, signs.rounding) if means else np.nan
    else:
        reversal = reversal_p(numbers, errors, cells.freedom)
    samples = (weights != 0) @ cells.counts
    parts = [
        Part(name, float(number), *student_interval(float(number), float(error), cells.freedom), int(count))
        for name, number, error, count in zip(names, numbers, errors, samples, strict=True)
    ]
    return Finding(
        these,
        _of_the_population(numbers, place=place, null=null, margin=margin),
        len(numbers),
        place,
        tuple(parts) if len(parts) > 1 else (),
        reversal,
        lost,
    )


def _size(weights: Values, numbers: Values) -> float:
    """The size of the terms of a weighted sum, to which its rounding is proportional."""
    return float(np.abs(weights) @ np.abs(numbers))


def _of_these(
    cells: Cells, weights: Values, *, signs: Signs, counted: str, null: Region, margin: float
) -> Test:
    """Student's t with the variance within each cell, and Welch's second formula for the degrees of freedom.

    The formula (Welch 1947) uses f + 2 in the place of f, and subtracts 2 from the result. With the three seeds of most
    studies, the first formula gives far too few degrees of freedom.
    """
    shares = weights**2 * cells.variances / cells.counts
    total = float(shares.sum())
    freedom = cells.freedom
    if total > 0 and np.isfinite(total):
        found = total**2 / float((shares**2 / (cells.freedoms + 2)).sum()) - 2
        freedom = float(np.clip(found, 1.0, cells.freedom))
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


def _of_the_population(numbers: Values, *, place: str, null: Region, margin: float) -> Test:
    """Student's t test over the places; each place counts once."""
    count = len(numbers)
    return student(
        LIKE_THESE,
        float(numbers.mean()) if count else np.nan,
        float(numbers.std(ddof=1) / count**0.5) if count > 1 else np.nan,
        count - 1,
        units=count,
        counted=place,
        method=f"t test over {place}",
        signs=signs_of(numbers),
        null=null,
        margin=margin,
    )


def signs_of(numbers: Values) -> Signs:
    """What a sign test over places may rest on: each place is one value of their population."""
    return Signs(numbers, len(numbers), float(np.abs(numbers).mean()))


def reversal_p(numbers: Values, errors: Values, freedom: float) -> float:
    """The p-value of the null hypothesis that all numbers are at least zero, or all at most zero.

    The test for qualitative interactions of Gail and Simon (1985, Biometrics 41), with F in place of chi-squared
    distributions because the variance is estimated. The statistic is the smaller of two sums of squared t values: that
    over the positive and that over the negative numbers. In the least favorable case one number is far from zero and
    the others are zero.

    Args:
        numbers: float64 (places,).
        errors: float64 (places,), their standard errors, above zero.
        freedom: degrees of freedom of the errors.
    """
    count = len(numbers)
    if count < 2 or not freedom > 0 or not (np.isfinite(errors) & (errors > 0)).all():
        return np.nan
    squares = (numbers / errors) ** 2
    smaller = min(float(squares[numbers > 0].sum()), float(squares[numbers < 0].sum()))
    if smaller == 0:
        return 1.0
    others = np.arange(1, count)
    chances = scipy.special.comb(count - 1, others) * 0.5 ** (count - 1)
    return float((chances * scipy.special.fdtrc(others, freedom, smaller / others)).sum())
