"""The mean of paired differences: interval, exact test, equivalence, and whether it is the same at every noise rate."""

from __future__ import annotations

from itertools import starmap

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike
from statsmodels.stats.weightstats import DescrStatsW

from analysis.statistics.effect import Effect, Part
from analysis.statistics.resampling import CONFIDENCE, PERMUTATIONS, Values, bootstrap_interval


def paired_effect(
    name: str,
    differences: ArrayLike,
    *,
    predicted: int,
    unit: str,
    margin: float = np.nan,
    strata: ArrayLike | None = None,
    seed: int = 0,
) -> Effect:
    """The mean of paired differences, with a BCa bootstrap interval and an exact sign-flip test.

    The bootstrap alone would be too sure of itself with few pairs: three differences of one sign exclude zero,
    as they do by chance in a quarter of all cases. The exact test, which with n pairs cannot go below
    2 / 2^n, keeps such a finding inconclusive. Where no difference is predicted, the test is of whether the mean lies
    beyond the margin.

    Args:
        name: what was compared.
        differences: one of each pair; NaN where a run diverged: such pairs are left out and counted as lost.
        predicted: +1, -1, or 0 for no difference.
        unit: of the differences.
        margin: differences smaller than that do not matter; two one-sided t tests say whether the mean is one.
        strata: such as noise rates, one a pair: the parts are the effects in each, and a permutation test of
            the pairs over the strata says whether they differ.
        seed: of the resampling.
    """
    values = np.asarray(differences, dtype=np.float64)
    finite = np.isfinite(values)
    labels = np.full(len(values), "") if strata is None else np.asarray(strata, dtype=str)
    by_stratum = {label: values[finite & (labels == label)] for label in sorted(set(labels.tolist()))}
    lost = int((~finite).sum())
    values = values[finite]
    count = len(values)
    if count < 2:
        low, high, p_value, test, smallest = np.nan, np.nan, np.nan, "too few pairs", 1.0
    else:
        low, high = bootstrap_interval((values,), np.mean, seed)
        exact = 2**count <= 20_000
        beyond = predicted == 0 and np.isfinite(margin)
        nearest = np.clip(values.mean(), -margin, margin) if beyond else 0.0
        p_value = scipy.stats.permutation_test(
            (values - nearest,),
            np.mean,
            permutation_type="samples",
            n_resamples=np.inf if exact else PERMUTATIONS,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
        test = f"{'exact ' if exact else ''}sign-flip test{' against the margin' if beyond else ''}"
        smallest = 2 / 2**count if exact else 2 / (PERMUTATIONS + 1)
    return Effect(
        name,
        predicted,
        float(values.mean()) if count else np.nan,
        low,
        high,
        float(p_value),
        test,
        count,
        "pairs",
        unit,
        lost=lost,
        margin=margin,
        equivalence_p=_equivalence_p(values, margin),
        reversal_p=_reversal_p(list(by_stratum.values()), seed),
        spread=float(values.std(ddof=1)) if count > 1 else np.nan,
        smallest_p=smallest,
        parts=tuple(starmap(_part, by_stratum.items())) if len(by_stratum) > 1 else (),
    )


def _part(name: str, values: Values) -> Part:
    low, high = np.nan, np.nan
    if len(values) > 1:
        low, high = DescrStatsW(values).tconfint_mean(1 - CONFIDENCE)
    return Part(name, float(values.mean()) if len(values) else np.nan, float(low), float(high), len(values))


def _equivalence_p(values: Values, margin: float) -> float:
    """Of two one-sided t tests (Schuirmann 1987).

    Where all values are the same, which leaves a t test no spread: if the median were beyond the margin, each
    would lie within it with a probability of at most a half.
    """
    if len(values) < 2 or not np.isfinite(margin):
        return np.nan
    if values.std() == 0:
        return float(0.5 ** len(values)) if abs(values[0]) < margin else 1.0
    return float(DescrStatsW(values).ttost_mean(-margin, margin)[0])


def _reversal_p(by_stratum: list[Values], seed: int) -> float:
    """Of a permutation test of the F statistic over strata with at least two values.

    The values' total variance stays as it is, so that F rises with the sum of n_k mean_k^2, which is used.
    """
    groups = [group for group in by_stratum if len(group) > 1]
    if len(groups) < 2 or np.concatenate(groups).std() == 0:
        return np.nan

    def between(*drawn: Values, axis: int) -> Values:
        return np.asarray(sum(group.shape[axis] * group.mean(axis) ** 2 for group in drawn))

    return float(
        scipy.stats.permutation_test(
            groups,
            between,
            permutation_type="independent",
            alternative="greater",
            n_resamples=PERMUTATIONS,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    )
