"""Means for each method, or family of methods, and cell, with which every statistic over methods begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.resampling import Values

DIGITS = 12
"""Digits of a mean that count. Sums of floats have 15 or 16."""
SMALLEST_DECADE = -300
FEWEST = 4
"""Least number of methods or families. An order of fewer cannot be told from chance."""


@dataclass(frozen=True)
class MethodMeans:
    """Means over the runs of each method in each cell.

    Attributes:
        table: one row for each cell, columns (quantity, method). Methods that are not in every cell are left out.
        count: number of methods.
        lost: number of methods with a run that has no number.
    """

    table: pd.DataFrame
    count: int
    lost: int


def method_means(runs: pd.DataFrame) -> MethodMeans:
    """The means of all columns of `runs` except for `cell` and `method`."""
    quantities = [name for name in runs if name not in ("cell", "method")]
    finite = np.isfinite(runs[quantities].to_numpy(dtype=np.float64)).all(axis=1)
    broken = runs.loc[~finite, "method"].unique()
    whole = runs.loc[~np.isin(runs["method"], broken)]
    of_runs = _means(whole[quantities].astype(np.float64), [whole["cell"], whole["method"]])
    means = pd.DataFrame(of_runs.unstack("method")).dropna(axis=1)
    count = 0 if means.empty else means[quantities[0]].shape[1]
    return MethodMeans(means, count, len(broken))


def family_means(means: MethodMeans, family_of: dict[str, str]) -> pd.DataFrame:
    """The means over the methods of each family: one row for each cell, columns (quantity, family)."""
    if means.table.empty:
        return means.table
    quantities = means.table.columns.get_level_values(0)
    families = means.table.columns.get_level_values(1).map(family_of)
    return _means(means.table.T, [quantities, families]).T


def _means(frame: pd.DataFrame, keys: list[Any]) -> pd.DataFrame:
    """The means of each group of rows. Those that differ by the rounding of their sums alone are equal."""
    means, sizes = (rows.groupby(keys, sort=True).mean() for rows in (frame, frame.abs()))
    tied = without_rounding(means.to_numpy(dtype=np.float64), sizes.to_numpy(dtype=np.float64))
    return pd.DataFrame(tied, means.index, means.columns)


def without_rounding(numbers: Values, sizes: Values) -> Values:
    """Numbers cut to twelve digits of their sizes, float64 of the same shape.

    Ranks and signs tell 0.602 from 0.6019999999999999. The last bits of a sum depend on the order of its terms, here
    that of the seeds, and a decimal number has none of its own.

    Args:
        numbers: float64, of any shape; NaN and infinity stay.
        sizes: float64 of the same shape, the mean size of the terms of each number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = 10.0 ** np.maximum(np.floor(np.log10(sizes)) - (DIGITS - 1), SMALLEST_DECADE)
        cut = np.round(numbers / steps) * steps
    return np.where(np.isfinite(cut), cut, numbers)
