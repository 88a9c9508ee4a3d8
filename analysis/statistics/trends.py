"""The slope of a quantity against a level, such as the noise rate, in each series of cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.cells import cells_at
from analysis.statistics.finding import THESE, Finding, nothing_found
from analysis.statistics.judged import judged_by_cells, over_units
from analysis.statistics.resampling import Values
from analysis.statistics.shared_draws import Codes, codes_of, shared_by
from analysis.statistics.single_values import Kept, about_repeated_cells


def trend(
    series: ArrayLike,
    levels: ArrayLike,
    values: ArrayLike,
    *,
    data_sets: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    margin: float = np.nan,
) -> Finding:
    """The mean over series of the least-squares slope of the cell means against the level.

    A series is a data set with one kind of noise, at several rates. A cell is one level of one series. The places of
    the finding are the series, because only further series tell more about others; so a slope that reverses between
    series is found. Cells of one run, where others have several, are left out of what is said of these cells
    (`single_values`). If no cell has two values, the slopes of several series are the values of a t test. Deviations
    from the lines are no measure of the spread: a far rate that scatters more pulls its line along, and up to 79% of
    slopes had a false sign. Without any spread, a slope of these cells has no test: that all values lie on one side
    says nothing of a slope.

    Of data like these, the mean over data sets of the mean slope of the series of each.

    Args:
        series: the series of each run.
        levels: the level of each run, such as its noise rate.
        values: the value of each run. Runs without a finite value are left out and counted as lost.
        data_sets: the data set of each run; a series has one. None: each series is of a data set of its own.
        draws: what names the random draws of each run. Runs of one draw in several cells are one unit, and data sets
            that share draws are one. None: no two runs share a draw.
        margin: the smallest slope that matters.
    """
    names, where = np.unique(np.asarray(series).astype(str), return_inverse=True)
    level, value = (np.asarray(column, dtype=np.float64) for column in (levels, values))
    finite = np.isfinite(level) & np.isfinite(value)
    lost = int((~finite).sum())
    codes_of_data = where if data_sets is None else codes_of(data_sets)
    codes_of_draws = np.arange(len(where)) if draws is None else codes_of(draws)
    if not finite.any():
        return nothing_found("too few runs", 0, "runs", lost)
    where, codes_of_data, codes_of_draws = where[finite], codes_of_data[finite], codes_of_draws[finite]
    level, value = level[finite], value[finite]
    places, cell = np.unique(np.column_stack([where, level]), axis=0, return_inverse=True)

    def judged(kept: Kept) -> Finding:
        found = _slopes(
            names, where[kept], level[kept], value[kept], codes_of_data[kept], codes_of_draws[kept], margin
        )
        return replace(found, lost=lost)

    titles = [f"{names[int(one)]} at {at:g}" if len(names) > 1 else f"{at:g}" for one, at in places]
    return about_repeated_cells(judged, cell.ravel(), codes_of_draws, titles)


def _slopes(
    names: NDArray[np.str_],
    where: Codes,
    level: Values,
    value: Values,
    data_sets: Codes,
    draws: Codes,
    margin: float,
) -> Finding:
    """The mean slope of finite values.

    Args:
        names: the names of all series.
        where: int64 (values,), the series of each value.
        level: float64 (values,).
        value: float64 (values,).
        data_sets: int64 (values,), the data set of each value.
        draws: int64 (values,), the draw of each value.
        margin: the smallest slope that matters.
    """
    places = np.unique(np.column_stack([where, level]), axis=0)
    # a series of one level has no slope
    several = np.bincount(places[:, 0].astype(np.int64), minlength=len(names)) > 1
    used = several[where]
    if not used.any():
        return nothing_found("too few runs", 0, "runs", 0)
    places, cell = np.unique(np.column_stack([where, level])[used], axis=0, return_inverse=True)
    cell = cell.ravel()
    cells = cells_at(cell, value[used])
    shared = shared_by(cell, value[used], data_sets[used], draws[used])
    kept = np.flatnonzero(several)
    belongs = places[None, :, 0] == kept[:, None]
    levels = places[:, 1]
    centered = np.where(belongs, levels - belongs @ levels / belongs.sum(1) @ belongs, 0.0)
    weights = centered / (centered**2).sum(1, keepdims=True)
    found = judged_by_cells(
        cells,
        weights,
        belongs,
        names[kept].tolist(),
        shared=shared,
        means=False,
        place="series",
        counted="runs",
        margin=margin,
    )
    if cells.freedom == 0 and len(kept) > 1 and not shared.is_any:
        slopes = over_units(THESE, weights @ cells.means, "series", margin=margin)
        return replace(found, these=slopes)
    return found


def slope_of(levels: Values, values: Values) -> float:
    """The least-squares slope of values against levels; NaN if a value is not finite or all levels are equal."""
    centered = levels - levels.mean()
    square = float((centered**2).sum())
    return float(centered @ values) / square if square > 0 else np.nan
