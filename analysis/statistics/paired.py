"""The mean of paired differences over cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.cells import cells_at
from analysis.statistics.finding import Finding, Region, nothing_found
from analysis.statistics.judged import judged_by_cells
from analysis.statistics.shared_draws import codes_of, shared_by
from analysis.statistics.single_values import Kept, about_repeated_cells


def paired_effect(
    cells: ArrayLike,
    differences: ArrayLike,
    *,
    data_sets: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    null: Region = (0.0, 0.0),
    margin: float = np.nan,
    counted: str = "pairs",
) -> Finding:
    """The mean over cells of the mean difference in each cell. All cells have one weight, also those with few seeds.

    Of data like these, the mean over data sets of the mean over the cells of each. Cells of one pair, where
    others have several, are left out of what is said of these cells (`single_values`).

    Args:
        cells: the cell of each pair.
        differences: one number for each pair; NaN if a run has no number. Such pairs are left out and counted as lost.
        data_sets: the data set of each pair. None: each cell is of a data set of its own.
        draws: what names the random draws of each pair. Pairs of one draw in several cells are one unit, and data sets
            that share draws are one, too. None: no two pairs share a draw.
        null: values that the null hypothesis allows; (-margin, margin) if no difference is predicted.
        margin: the smallest difference that matters. Two one-sided t tests say whether the mean is smaller.
        counted: word for the pairs.
    """
    values = np.asarray(differences, dtype=np.float64)
    finite = np.isfinite(values)
    lost = int((~finite).sum())
    if not finite.any():
        return nothing_found(f"too few {counted}", 0, counted, lost)
    names, where = np.unique(np.asarray(cells).astype(str)[finite], return_inverse=True)
    values = values[finite]
    codes_of_data = where if data_sets is None else codes_of(np.asarray(data_sets)[finite])
    codes_of_draws = np.arange(len(values)) if draws is None else codes_of(np.asarray(draws)[finite])

    def judged(kept: Kept) -> Finding:
        places, cell = np.unique(where[kept], return_inverse=True)
        found = judged_by_cells(
            cells_at(cell, values[kept]),
            np.eye(len(places)),
            np.eye(len(places), dtype=bool),
            names[places].tolist(),
            shared=shared_by(cell, values[kept], codes_of_data[kept], codes_of_draws[kept]),
            means=True,
            counted=counted,
            null=null,
            margin=margin,
        )
        return replace(found, lost=lost)

    return about_repeated_cells(judged, where, codes_of_draws, names.tolist())
