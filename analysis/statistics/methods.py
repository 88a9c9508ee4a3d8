"""What every statistic over methods begins with: one mean a method and stratum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.effect import Effect

FEWEST = 4
"""Methods; an order of fewer cannot be told from chance."""


@dataclass(frozen=True)
class MethodMeans:
    """Means over the runs of each method in each stratum.

    Attributes:
        table: one row a stratum, columns (quantity, method); methods that are not in every stratum are left out.
        count: methods.
        lost: methods that are left out because one of their runs has no number.
    """

    table: pd.DataFrame
    count: int
    lost: int


def method_means(runs: pd.DataFrame) -> MethodMeans:
    """The means of all columns of `runs` but its `stratum` and `method`."""
    quantities = [name for name in runs if name not in ("stratum", "method")]
    finite = np.isfinite(runs[quantities].to_numpy(dtype=np.float64)).all(axis=1)
    broken = runs.loc[~finite, "method"].unique()
    whole = runs.loc[~np.isin(runs["method"], broken)]
    means = whole.pivot_table(index="stratum", columns="method", values=quantities).dropna(axis=1)
    count = 0 if means.empty else means[quantities[0]].shape[1]
    return MethodMeans(means, count, len(broken))


def nothing_to_tell(name: str, predicted: int, why: str, means: MethodMeans, unit: str) -> Effect:
    """The effect of methods that cannot be compared."""
    nothing = np.nan
    return Effect(
        name,
        predicted,
        nothing,
        nothing,
        nothing,
        nothing,
        why,
        means.count,
        "methods",
        unit,
        lost=means.lost,
        smallest_p=1.0,
    )
