"""Effects with their intervals and verdicts, from SciPy's resampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
RESAMPLES = 4999
PERMUTATIONS = 4999
RANK_CORRELATION = "rank correlation"

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"


@dataclass(frozen=True)
class Effect:
    """One measured prediction.

    Attributes:
        name: what was compared.
        predicted: +1 or -1, the sign that the claim predicts.
        estimate: of the effect; NaN if nothing could be compared.
        low: lower end of the 95% bootstrap interval.
        high: upper end.
        p_value: of the null hypothesis of no effect, two-sided.
        test: which test gave the p-value.
        samples: how many independent units (pairs of runs, runs, or methods) entered.
        lost: how many could not enter, because a run diverged or was not measured.
        unit: of the estimate.
    """

    name: str
    predicted: int
    estimate: float
    low: float
    high: float
    p_value: float
    test: str
    samples: int
    unit: str
    lost: int = 0

    @property
    def verdict(self) -> str:
        """Supported or contradicted only if both the interval and the test exclude no effect.

        Never with losses: what is left after runs diverged is a choice of the fittest.
        """
        decided = self.lost == 0 and (self.low > 0 or self.high < 0) and self.p_value < SIGNIFICANCE
        if not decided:
            return INCONCLUSIVE
        return SUPPORTED if np.sign(self.estimate) == self.predicted else CONTRADICTED


def combined_verdict(verdicts: Sequence[str]) -> str:
    """Of a claim with several predictions: contradicted if one is, supported if all are."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and all(v == SUPPORTED for v in verdicts) else INCONCLUSIVE


def paired_effect(name: str, differences: ArrayLike, *, predicted: int, unit: str, seed: int = 0) -> Effect:
    """The mean of paired differences, with a BCa bootstrap interval and an exact sign-flip test.

    The bootstrap alone would be too sure of itself with few pairs: three differences of one sign exclude zero,
    as they do by chance in a quarter of all cases. The exact test, which with n pairs cannot go below
    2 / 2^n, keeps such a finding inconclusive.

    Args:
        name: what was compared.
        differences: one of each pair; NaN where a run diverged: such pairs are left out and counted as lost.
        predicted: +1 or -1.
        unit: of the differences.
        seed: of the resampling.
    """
    values = np.asarray(differences, dtype=np.float64)
    lost = int((~np.isfinite(values)).sum())
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return _undecided(name, predicted, len(values), unit, lost, *values)
    low, high = _bootstrap((values,), np.mean, seed)
    exact = 2 ** len(values) <= 20_000
    p_value = scipy.stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if exact else PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).pvalue
    test = "exact sign-flip test" if exact else "sign-flip test"
    return Effect(
        name, predicted, float(values.mean()), low, high, float(p_value), test, len(values), unit, lost
    )


def trend(
    name: str, levels: ArrayLike, values: ArrayLike, *, predicted: int, unit: str, seed: int = 0
) -> Effect:
    """The least-squares slope of values against levels, over independent runs.

    The interval resamples the runs within each level; the test permutes the levels over the runs.

    Args:
        name: what was compared.
        levels: such as noise rates, one a run.
        values: one a run; runs without a finite value are left out.
        predicted: +1 or -1.
        unit: of the slope.
        seed: of the resampling.
    """
    x, y = np.asarray(levels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    usable = np.isfinite(x) & np.isfinite(y)
    lost = int((~usable).sum())
    x, y = x[usable], y[usable]
    groups = [np.flatnonzero(x == level) for level in np.unique(x)]
    if len(groups) < 2 or len(y) < 4:
        return _undecided(name, predicted, len(y), unit, lost)

    def slope(*drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        indices = np.concatenate(drawn, axis=axis)
        return _slope(x[indices], y[indices])

    low, high = _bootstrap(groups, slope, seed)
    p_value = scipy.stats.permutation_test(
        (x,),
        lambda shuffled, axis: _slope(np.moveaxis(shuffled, axis, -1), y),
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).pvalue
    return Effect(
        name,
        predicted,
        float(slope(*groups)),
        low,
        high,
        float(p_value),
        "permutation test",
        len(y),
        unit,
        lost,
    )


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares slope of y on x along the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray((centred * y).sum(-1) / (centred**2).sum(-1))


def rank_correlation_between(
    name: str,
    strata: ArrayLike,
    methods: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    predicted: int,
    seed: int = 0,
) -> Effect:
    """Spearman's rank correlation of x and y over methods, within each stratum, averaged over the strata.

    Runs of one method in one stratum are averaged first: its seeds are repetitions, not new evidence of how x
    and y go together, and to count them as such finds a correlation in more than half of all cases where there
    is none. For the same reason the test permutes whole methods, the same way in all strata, and the interval
    resamples them.

    Args:
        name: what was compared.
        strata: such as noise rates, one a run.
        methods: one a run; methods that are not in every stratum are left out.
        x: one a run.
        y: one a run.
        predicted: +1 or -1.
        seed: of the resampling.
    """
    runs = pd.DataFrame({"stratum": strata, "method": methods, "x": x, "y": y})
    finite = np.isfinite(runs[["x", "y"]].to_numpy(dtype=np.float64)).all(axis=1)
    lost = int((~finite).sum())
    means = runs[finite].groupby(["stratum", "method"])[["x", "y"]].mean().unstack("method").dropna(axis=1)
    if means.empty or len(means["x"].columns.intersection(means["y"].columns)) < 4:
        return _undecided(name, predicted, 0, RANK_CORRELATION, lost)
    first, second = means["x"].to_numpy(), means["y"].to_numpy()
    count = first.shape[1]

    def correlation(positions: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        by_stratum = [_spearman(a[positions], b[others]) for a, b in zip(first, second, strict=True)]
        return np.asarray(np.mean(by_stratum, axis=0))

    everyone = np.arange(count)
    low, high = _bootstrap(
        [everyone], lambda drawn, axis: correlation(*[np.moveaxis(drawn, axis, -1)] * 2), seed
    )
    p_value = scipy.stats.permutation_test(
        (everyone,),
        lambda shuffled, axis: correlation(everyone, np.moveaxis(shuffled, axis, -1)),
        permutation_type="pairings",
        n_resamples=np.inf if count <= 7 else PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).pvalue
    test = f"{'exact ' if count <= 7 else ''}permutation test of methods"
    estimate = float(correlation(everyone, everyone))
    return Effect(name, predicted, estimate, low, high, float(p_value), test, count, RANK_CORRELATION, lost)


def _undecided(
    name: str, predicted: int, samples: int, unit: str, lost: int, estimate: float = np.nan
) -> Effect:
    """Too few values for an interval or a test."""
    return Effect(name, predicted, estimate, np.nan, np.nan, 1.0, "too few runs", samples, unit, lost)


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's rank correlation along the last axis; 0 where one side is constant and none can be seen.

    `scipy.stats.spearmanr` takes one pair at a time; here all resamples go at once.
    """
    first, second = scipy.stats.rankdata(x, axis=-1), scipy.stats.rankdata(y, axis=-1)
    first = first - first.mean(-1, keepdims=True)
    second = second - second.mean(-1, keepdims=True)
    scale = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    products = (first * second).sum(-1)
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def _bootstrap(
    samples: Sequence[NDArray[np.int64] | NDArray[np.float64]],
    statistic: Callable[..., NDArray[np.float64]],
    seed: int,
) -> tuple[float, float]:
    """BCa interval; the percentile interval where all of BCa's resamples agree; NaN for samples of one."""
    if any(len(sample) < 2 for sample in samples):
        return np.nan, np.nan

    def interval(method: str) -> tuple[float, float]:
        result = scipy.stats.bootstrap(
            tuple(samples),
            statistic,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=500,
            method=method,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        return float(result.low), float(result.high)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        low, high = interval("BCa")
        return (low, high) if np.isfinite([low, high]).all() else interval("percentile")
