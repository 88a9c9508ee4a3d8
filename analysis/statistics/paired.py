"""The mean of paired differences over cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.cells import cells_of, judged_by_cells
from analysis.statistics.finding import Finding, Region, nothing_found


def paired_effect(
    cells: ArrayLike,
    differences: ArrayLike,
    *,
    null: Region = (0.0, 0.0),
    margin: float = np.nan,
    counted: str = "pairs",
) -> Finding:
    """The mean over cells of the mean difference in each cell. All cells have one weight, also those with few seeds.

    Args:
        cells: the cell of each pair.
        differences: one number for each pair; NaN if a run has no number. Such pairs are left out and counted as lost.
        null: values that the null hypothesis allows; (-margin, margin) if no difference is predicted.
        margin: the smallest difference that matters. Two one-sided t tests say whether the mean is smaller.
        counted: word for the pairs.
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
        means=True,
        counted=counted,
        null=null,
        margin=margin,
        lost=lost,
    )
