"""The slope of a quantity against a level, such as the noise rate, in each series of cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.cells import Cells, cells_at
from analysis.statistics.finding import Finding, nothing_found
from analysis.statistics.judged import judged_by_cells
from analysis.statistics.resampling import Values
from analysis.statistics.shared_draws import codes_of, shared_by


def trend(
    series: ArrayLike,
    levels: ArrayLike,
    values: ArrayLike,
    *,
    draws: ArrayLike | None = None,
    margin: float = np.nan,
) -> Finding:
    """The mean over series of the least-squares slope of the cell means against the level.

    A series is a data set with one kind of noise, at several rates. A cell is one level of one series. The places of
    the finding are the series, because only further series tell more about others; so a slope that reverses between
    series is found. If no cell has two values, the deviations of the cell means from the lines take the place
    of the spread within cells. Without any spread, a slope of these cells has no test: that all values lie on one side
    says nothing of a slope.

    Args:
        series: the series of each run.
        levels: the level of each run, such as its noise rate.
        values: the value of each run. Runs without a finite value are left out and counted as lost.
        draws: what names the random draws of each run. Runs of one draw in several cells are one unit, and series that
            share draws are one of the population. None: no two runs share a draw.
        margin: the smallest slope that matters.
    """
    names, where = np.unique(np.asarray(series).astype(str), return_inverse=True)
    level, value = (np.asarray(column, dtype=np.float64) for column in (levels, values))
    finite = np.isfinite(level) & np.isfinite(value)
    lost = int((~finite).sum())
    places = np.unique(np.column_stack([where, level])[finite], axis=0)
    # a series of one level has no slope
    several = np.bincount(places[:, 0].astype(np.int64), minlength=len(names)) > 1
    used = finite & several[where]
    if not used.any():
        return nothing_found("too few runs", 0, "runs", lost)
    places, cell = np.unique(np.column_stack([where, level])[used], axis=0, return_inverse=True)
    cell = cell.ravel()
    cells = cells_at(cell, value[used])
    shared = shared_by(
        cell,
        value[used],
        where[used],
        np.arange(len(cell)) if draws is None else codes_of(np.asarray(draws)[used]),
    )
    kept = np.flatnonzero(several)
    belongs = places[None, :, 0] == kept[:, None]
    level = places[:, 1]
    centered = np.where(belongs, level - belongs @ level / belongs.sum(1) @ belongs, 0.0)
    weights = centered / (centered**2).sum(1, keepdims=True)
    if cells.freedom == 0 and not shared.is_any:
        cells = _with_deviations_from_lines(cells, belongs, centered, weights)
    return judged_by_cells(
        cells,
        weights,
        names[kept].tolist(),
        shared=shared,
        means=False,
        place="series",
        counted="runs",
        margin=margin,
        lost=lost,
    )


def slope_of(levels: Values, values: Values) -> float:
    """The least-squares slope of values against levels; NaN if a value is not finite or all levels are equal."""
    centered = levels - levels.mean()
    square = float((centered**2).sum())
    return float(centered @ values) / square if square > 0 else np.nan


def _with_deviations_from_lines(cells: Cells, belongs: Values, centered: Values, weights: Values) -> Cells:
    """The cells, with the variance of their means about the line of each series."""
    middles = (belongs @ cells.means / belongs.sum(1)) @ belongs
    residuals = cells.means - middles - (weights @ cells.means) @ centered
    freedom = len(cells.means) - 2.0 * len(weights)
    if freedom < 1:
        return cells
    variance = float((residuals**2).sum()) / freedom
    everywhere = np.ones_like(cells.means)
    return replace(
        cells,
        variances=variance * everywhere,
        freedoms=freedom * everywhere,
        pooled=variance,
        freedom=freedom,
    )
