"""Cells. A cell is a data set with a kind and a rate of noise; a series is all cells of one data set and kind.

Two questions have different answers. What is true of these cells? Only the spread of seeds within cells makes the
answer uncertain. What is true of data like these, under the same kinds and rates of noise? The spread between data sets
makes the answer uncertain, and more seeds, rates or kinds of noise do not help: the seeds of a cell share one choice of
hyper-parameters, and the cells of a data set are alike, because they differ only in the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.finding import ROUNDING
from analysis.statistics.resampling import Values


@dataclass(frozen=True)
class Cells:
    """The means of cells and the spread within them.

    Attributes:
        means: float64 (cells,), mean of each cell.
        counts: float64 (cells,), number of values in each cell.
        variances: float64 (cells,), variance of one value within its cell; NaN for a cell of one value, which says
            nothing of its spread. Other cells may have another one, so that it borrows none.
        freedoms: float64 (cells,), degrees of freedom of the variances.
        pooled: the variance of one value within its cell, over all cells; NaN if none has two values.
        freedom: degrees of freedom of the pooled variance.
    """

    means: Values
    counts: Values
    variances: Values
    freedoms: Values
    pooled: float
    freedom: float


def cells_at(where: NDArray[np.int64], numbers: Values) -> Cells:
    """The cells of finite values. Each value lies in the cell of its index in `where`."""
    counts = np.bincount(where).astype(np.float64)
    # sorted, so that the sum does not depend on the order of the values
    order = np.lexsort((numbers, where))
    means = np.bincount(where[order], numbers[order]) / counts
    # values that cancel leave the rounding of their sum
    means[np.abs(means) <= ROUNDING * np.bincount(where, np.abs(numbers)) / counts] = 0
    squares = np.bincount(where[order], (numbers[order] - means[where[order]]) ** 2)
    repeated = counts > 1
    variances = np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=repeated)
    freedom = float((counts - 1).sum())
    pooled = float(((counts - 1)[repeated] * variances[repeated]).sum() / freedom) if freedom else np.nan
    return Cells(
        means,
        counts,
        variances,
        counts - 1,
        pooled,
        freedom,
    )
