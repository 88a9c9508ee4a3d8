"""The mean of paired differences over cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.cells import cells_of, judged_by_cells
from analysis.statistics.finding import Finding, nothing_found
from analysis.statistics.student import Region


def paired_effect(
    cells: ArrayLike,
    differences: ArrayLike,
    *,
    null: Region = (0.0, 0.0),
    margin: float = np.nan,
    counted: str = "pairs",
) -> Finding:
    """The mean over cells of the mean difference in each. Every cell has the same weight, also with fewer seeds.

    Args:
        cells: one label a pair.
        differences: one number a pair; NaN where a run has no number: such pairs are left out and counted as lost.
        null: values that the null hypothesis allows; (-margin, margin) where no difference is predicted.
        margin: the smallest difference that matters. Two one-sided t tests say whether the mean is smaller.
        counted: what the pairs are called.
    """
    values = np.asarray(differences, dtype=np.float64)
    finite = np.isfinite(values)
    lost = int((~finite).sum())
    if not finite.any():
        return nothing_found(f"too few {counted}", 0, counted, lost)
    found = cells_of(np.asarray(cells)[finite], values[finite])
    return judged_by_cells(
        found,
        np.eye(len(found.labels)),
        found.labels,
        counted=counted,
        null=null,
        margin=margin,
        lost=lost,
    )
