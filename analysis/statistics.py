"""Effects with their intervals and verdicts, from SciPy's resampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000

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
        samples: how many independent units (pairs of runs, or runs) entered.
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

    @property
    def verdict(self) -> str:
        """Supported or contradicted only if both the interval and the test exclude no effect."""
        decided = (self.low > 0 or self.high < 0) and self.p_value < 1 - CONFIDENCE
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
        differences: one of each pair; NaN where a run is missing or diverged: such pairs are left out.
        predicted: +1 or -1.
        unit: of the differences.
        seed: of the resampling.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    test = "exact sign-flip test"
    if len(values) < 2:
        estimate = float(values.mean()) if len(values) else np.nan
        return Effect(name, predicted, estimate, np.nan, np.nan, 1.0, test, len(values), unit)
    low, high = _bootstrap((values,), np.mean, seed)
    exact = 2 ** len(values) <= 20_000
    p_value = scipy.stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if exact else 9999,
        rng=np.random.default_rng(seed),
    ).pvalue
    test = test if exact else "sign-flip test, 9999 draws"
    return Effect(
        name, predicted, float(values.mean()), low, high, float(p_value), test, len(values), unit
    )


def trend(
    name: str, levels: ArrayLike, values: ArrayLike, *, predicted: int, seed: int = 0
) -> Effect:
    """Kendall's tau-b of values against ordered levels, over independent runs.

    The interval resamples the runs within each level; the p-value is Kendall's, exact where there are no ties.
    """
    x, y = _finite(levels, values)
    strata = np.unique(x)
    test = "Kendall's tau"
    if len(strata) < 2 or len(y) < 4:
        return Effect(name, predicted, np.nan, np.nan, np.nan, 1.0, test, len(y), "tau")
    groups = [np.flatnonzero(x == level) for level in strata]
    low, high = _bootstrap(groups, lambda *drawn: _tau(x, y, np.concatenate(drawn)), seed)
    p_value = scipy.stats.kendalltau(x, y).pvalue
    everything = np.arange(len(y))
    return Effect(name, predicted, _tau(x, y, everything), low, high, float(p_value), test, len(y), "tau")


def rank_correlation_within(
    name: str, strata: ArrayLike, x: ArrayLike, y: ArrayLike, *, predicted: int, seed: int = 0
) -> Effect:
    """Kendall's tau-b of x and y within each stratum, averaged over the strata.

    The interval resamples the runs within each stratum; the test permutes them there.
    """
    stratum = np.asarray(strata)
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    usable = np.isfinite(first) & np.isfinite(second)
    groups = [np.flatnonzero(usable & (stratum == level)) for level in np.unique(stratum)]
    groups = [group for group in groups if len(group) >= 4]
    test = "permutation within strata, 1999 draws"
    total = sum(map(len, groups))
    if not groups:
        return Effect(name, predicted, np.nan, np.nan, np.nan, 1.0, test, total, "tau")

    def mean_tau(*drawn: NDArray[np.int64]) -> float:
        return float(np.mean([_tau(first, second, indices) for indices in drawn]))

    low, high = _bootstrap(groups, mean_tau, seed)
    estimate = mean_tau(*groups)
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(1999):
        shuffled = second.copy()
        for group in groups:
            shuffled[group] = rng.permutation(second[group])
        null.append(np.mean([_tau(first, shuffled, group) for group in groups]))
    p_value = (1 + np.sum(np.abs(null) >= abs(estimate) - 1e-12)) / (1 + len(null))
    return Effect(name, predicted, estimate, low, high, float(p_value), test, total, "tau")


def _finite(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    usable = np.isfinite(first) & np.isfinite(second)
    return first[usable], second[usable]


def _tau(x: NDArray[np.float64], y: NDArray[np.float64], indices: NDArray[np.int64]) -> float:
    """Kendall's tau-b; 0 where one side is constant and no association can be seen."""
    value = scipy.stats.kendalltau(x[indices], y[indices]).statistic
    return 0.0 if np.isnan(value) else float(value)


def _bootstrap(
    samples: Sequence[NDArray[np.int64] | NDArray[np.float64]], statistic: Callable[..., float], seed: int
) -> tuple[float, float]:
    """BCa interval; the percentile interval where every resample that BCa needs is the same."""

    def interval(method: str) -> tuple[float, float]:
        result = scipy.stats.bootstrap(
            tuple(samples),
            statistic,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            method=method,
            vectorized=False,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        return float(result.low), float(result.high)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        low, high = interval("BCa")
        return (low, high) if np.isfinite([low, high]).all() else interval("percentile")
