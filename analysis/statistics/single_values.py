"""Cells of one value beside cells of several, as in a study that was stopped halfway.

One value says nothing of the spread of its cell, and the spread of others is no guide: more wrong labels make results
scatter more. With it in its place, up to 64% of studies without an effect had a verdict. So such cells are left out of
what is said of these cells. Data like these are judged by the means of all cells, which need no spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.finding import FEWEST_DATA_SETS, Finding
from analysis.statistics.shared_draws import Codes, of_repeated_cells

Kept = NDArray[np.bool_]


def about_repeated_cells(
    judged: Callable[[Kept], Finding], where: Codes, draws: Codes, names: list[str]
) -> Finding:
    """The finding of all values; what it says of these cells, it says of those that are repeated.

    Where no cell is repeated, or the repeated cells have no number, such as a slope, nothing is left out.

    Args:
        judged: the finding of some of the values, which bool (values,) marks.
        where: int64 (values,), the cell of each value.
        draws: int64 (values,), the draw of each value.
        names: the names of the cells.
    """
    kept = of_repeated_cells(where, draws)
    whole = judged(np.ones_like(kept))
    if kept.all() or not kept.any():
        return whole
    found = judged(kept)
    single = tuple(names[cell] for cell in np.setdiff1d(where, where[kept]))
    if not found.places:
        return replace(whole, single=single)
    decides = whole.data_sets >= FEWEST_DATA_SETS
    return replace(
        found,
        like_these=whole.like_these,
        data_sets=whole.data_sets if decides else found.data_sets,
        single=single,
    )
