"""Means for each method, or family of methods, and cell, with which every statistic over methods begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

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
    means = whole.pivot_table(index="cell", columns="method", values=quantities).dropna(axis=1)
    count = 0 if means.empty else means[quantities[0]].shape[1]
    return MethodMeans(means, count, len(broken))


def family_means(means: MethodMeans, family_of: dict[str, str]) -> pd.DataFrame:
    """The means over the methods of each family: one row for each cell, columns (quantity, family)."""
    if means.table.empty:
        return means.table
    quantities = means.table.columns.get_level_values(0)
    families = means.table.columns.get_level_values(1).map(family_of)
    averaged = means.table.T.groupby([quantities, families], sort=True).mean().T
    return pd.DataFrame(averaged)
