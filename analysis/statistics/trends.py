"""Whether a quantity grows with the noise rate: slope, and the rank tests of Jonckheere and of Page."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from analysis.statistics.effect import Effect
from analysis.statistics.resampling import CONFIDENCE, PERMUTATIONS, Indices, Values


def trend(
    name: str,
    levels: ArrayLike,
    values: ArrayLike,
    *,
    predicted: int,
    unit: str,
    strata: ArrayLike | None = None,
    blocks: ArrayLike | None = None,
    margin: float = np.nan,
    seed: int = 0,
) -> Effect:
    """The least-squares slope of values against levels within strata, and a test of a monotone trend.

    Runs at different noise rates share nothing, whatever their seeds: Jonckheere's statistic, tested by
    permuting the levels over the runs of each stratum. Runs of different settings with one seed are paired:
    Page's test within blocks, where each block holds every level once and there are three or more; else
    Jonckheere's. The interval is Student's: a bootstrap within cells of three runs, as studies have them, would hold
    the slope in some 81% of draws.

    Args:
        name: what was compared.
        levels: such as noise rates, one a run.
        values: one a run; runs without a finite value are left out and counted as lost.
        predicted: +1 or -1.
        unit: of the slope.
        strata: such as data sets, one a run: only differences within them count.
        blocks: such as seeds, one a run, if runs of one block are paired.
        margin: slopes smaller than that do not matter.
        seed: of the resampling.
    """
    runs = pd.DataFrame(
        {name: np.asarray(v, dtype=np.float64) for name, v in (("level", levels), ("value", values))}
    )
    runs["stratum"] = 0 if strata is None else np.asarray(strata)
    runs["block"] = 0 if blocks is None else np.asarray(blocks)
    finite = np.isfinite(runs["level"]) & np.isfinite(runs["value"])
    lost = int((~finite).sum())
    runs = runs.loc[finite]
    # a stratum of one level says nothing of a trend
    runs = runs.loc[runs.groupby("stratum")["level"].transform("nunique") > 1].reset_index(drop=True)
    if len(runs) < 4:
        nothing = np.nan
        return Effect(
            name,
            predicted,
            nothing,
            nothing,
            nothing,
            nothing,
            "too few runs",
            len(runs),
            "runs",
            unit,
            lost=lost,
            margin=margin,
            smallest_p=1.0,
        )
    strata_of, x, y = (runs[column].to_numpy() for column in ("stratum", "level", "value"))

    estimate, error, freedom = _slope_within(strata_of, x, y)
    margin_of_error = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) if freedom else np.nan
    paired = _in_complete_blocks(runs) if blocks is not None else None
    if paired is None:
        p_value = _jonckheere(strata_of, x, y, seed)
        # of all orders of the levels, no more than one on each side is as extreme
        orders = math.prod(_orders(levels) for _, levels in runs.groupby("stratum")["level"])
        smallest = max(2 / orders, 2 / (PERMUTATIONS + 1))
    else:
        p_value = _page(paired)
        smallest = 2 / float(math.factorial(paired.shape[1])) ** paired.shape[0]
    return Effect(
        name,
        predicted,
        estimate,
        estimate - margin_of_error,
        estimate + margin_of_error,
        p_value,
        "permutation test of Jonckheere's statistic" if paired is None else "Page's test",
        len(runs),
        "runs",
        unit,
        lost=lost,
        margin=margin,
        equivalence_p=_equivalence_p(estimate, error, freedom, margin),
        spread=error * len(runs) ** 0.5,
        smallest_p=smallest,
    )


def _slope_within(strata: np.ndarray, x: Values, y: Values) -> tuple[float, float, int]:
    """Least-squares slope with an intercept for each stratum, its standard error, and the degrees of freedom."""
    frame = pd.DataFrame({"stratum": strata, "x": x, "y": y})
    centred = frame[["x", "y"]] - frame.groupby("stratum")[["x", "y"]].transform("mean")
    square = (centred["x"] ** 2).sum()
    slope = float((centred["x"] * centred["y"]).sum() / square)
    freedom = len(frame) - frame["stratum"].nunique() - 1
    if freedom < 1:
        return slope, np.nan, 0
    residuals = centred["y"] - slope * centred["x"]
    return slope, float(np.sqrt((residuals**2).sum() / freedom / square)), freedom


def _orders(levels: pd.Series) -> int:
    """In how many ways the levels can be given to the runs."""
    return math.factorial(len(levels)) // math.prod(math.factorial(n) for n in levels.value_counts())


def _equivalence_p(estimate: float, error: float, freedom: int, margin: float) -> float:
    """Of two one-sided t tests of the slope; NaN where the runs show no spread to test by."""
    if not np.isfinite(margin) or not error > 0:
        return np.nan
    return float(scipy.stats.t.sf((margin - abs(estimate)) / error, freedom))


def _in_complete_blocks(runs: pd.DataFrame) -> Values | None:
    """The values as (blocks, levels ascending), if each block holds each level once and there are three or more."""
    if runs.duplicated(["stratum", "block", "level"]).any():
        return None
    matrix = runs.pivot(index=["stratum", "block"], columns="level", values="value").to_numpy()
    complete = np.isfinite(matrix).all() and matrix.shape[0] > 1 and matrix.shape[1] > 2
    return matrix if complete else None


def _page(matrix: Values) -> float:
    """Two-sided p-value of Page's test, which SciPy has one-sided."""
    ranks = np.arange(1, matrix.shape[1] + 1)
    sides = [scipy.stats.page_trend_test(matrix, predicted_ranks=r).pvalue for r in (ranks, ranks[::-1])]
    return min(1.0, 2 * min(sides))


def _jonckheere(strata: np.ndarray, x: Values, y: Values, seed: int) -> float:
    """Two-sided p-value of Jonckheere's statistic, the concordant pairs of runs less the discordant ones.

    Summed over the strata, within which the levels are permuted; ties in either count 0.
    """
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]

    def concordance(order: Indices, axis: int) -> Values:
        order = np.moveaxis(order, axis, -1)
        # how a permutation of all runs orders those of a stratum is a permutation of the stratum
        levels = [x[group][order[..., group].argsort(-1)] for group in groups]
        pairs = zip(levels, groups, strict=True)
        return np.asarray(sum(_concordance(of_stratum, y[group]) for of_stratum, group in pairs))

    return float(
        scipy.stats.permutation_test(
            [np.arange(len(x))],
            concordance,
            permutation_type="pairings",
            n_resamples=PERMUTATIONS,
            batch=500,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _concordance(levels: Values, values: Values) -> Values:
    """Concordant pairs less discordant ones, of levels (..., n) with values (n,).

    By counts of the runs of each level with smaller values, so that thousands of runs take no table of their pairs.
    """
    order = np.argsort(values)
    levels, values = levels[..., order], values[order]
    below = np.searchsorted(values, values)
    total = np.zeros(levels.shape[:-1])
    for level in np.unique(levels):
        counts = np.zeros((*levels.shape[:-1], levels.shape[-1] + 1))
        np.cumsum(levels == level, axis=-1, out=counts[..., 1:])
        total += (counts[..., below] * np.sign(levels - level)).sum(-1)
    return total
