"""Whether the best value of an option lies among some of its values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.finding import Finding, Test
from analysis.statistics.paired import paired_effect
from analysis.statistics.resampling import Values


def best_among(
    cells: ArrayLike,
    outcomes: Values,
    inside: NDArray[np.bool_],
    *,
    data_sets: ArrayLike | None = None,
    draws: ArrayLike | None = None,
    margin: float = np.nan,
    counted: str = "pairs",
) -> Finding:
    """The best mean outcome among the values inside a set, less the best one among the values outside.

    The best value is inside if one value inside is better than every value outside. So a value inside has the largest
    p-value of its comparisons with the values outside, paired by row: all of them must find it better (an
    intersection-union test, Berger 1982, Technometrics 24, which needs no correction). Which value inside it is was not
    known before, so that the smallest of these p-values is multiplied by the number of values inside. That the best
    value is outside is tested in the same way, with the two sets exchanged. The p-value is twice the smaller one of the
    two, and the estimate and its interval are those of the pair of values on which it rests.

    The best outcomes are equivalent if those of every value inside and every value outside are.

    Args:
        cells: the cell of each row of outcomes.
        outcomes: float64 (rows, values), larger is better; NaN if a run has no number. Such rows are lost.
        inside: bool (values,), which values are inside; some are, and others are not.
        data_sets: the data set of each row, see `paired_effect`.
        draws: what names the random draws of each row, see `paired_effect`.
        margin: the smallest difference that matters.
        counted: word for the rows.
    """
    whole = np.where(np.isfinite(outcomes).all(1, keepdims=True), outcomes, np.nan)
    pairs = [
        [
            paired_effect(
                cells,
                whole[:, one] - whole[:, other],
                data_sets=data_sets,
                draws=draws,
                margin=margin,
                counted=counted,
            )
            for other in np.flatnonzero(~inside)
        ]
        for one in np.flatnonzero(inside)
    ]
    _, (one, other) = _decided([[pair.deciding for pair in row] for row in pairs])
    pair = pairs[one][other]
    these = _corrected(pair.these, [[each.these for each in row] for row in pairs])
    like_these = _corrected(pair.like_these, [[each.like_these for each in row] for row in pairs])
    reversal = min(1.0, pair.reversal_p * inside.sum() * (~inside).sum())
    return replace(pair, these=these, like_these=like_these, reversal_p=reversal)


def _decided(tests: list[list[Test]]) -> tuple[float, tuple[int, int]]:
    """The two-sided p-value, and the pair of values on which it rests: the indices of one inside and one outside.

    Args:
        tests: for each value inside, its tests against each value outside.
    """
    better, worse = (
        np.array([[_one_sided(test, sign) for test in row] for row in tests]) for sign in (1, -1)
    )
    inside, outside = int(better.max(1).argmin()), int(worse.max(0).argmin())
    is_inside = len(better) * better[inside].max()
    is_outside = better.shape[1] * worse[:, outside].max()
    if is_inside <= is_outside:
        return min(1.0, 2 * float(is_inside)), (inside, int(better[inside].argmax()))
    return min(1.0, 2 * float(is_outside)), (int(worse[:, outside].argmax()), outside)


def _one_sided(test: Test, sign: int) -> float:
    """The p-value of the null hypothesis that a number has not this sign; 1 if no test was possible."""
    if not np.isfinite(test.p_value):
        return 1.0
    half = test.p_value / 2
    return half if test.estimate * sign > 0 else 1 - half


def _corrected(test: Test, tests: list[list[Test]]) -> Test:
    """The test of one pair of values, with the p-values of the whole comparison.

    It has no standard error, as that of one pair plans no study in which several pairs must be told apart.
    """
    p_value, _ = _decided(tests)
    return replace(
        test,
        p_value=p_value if np.isfinite(test.p_value) else np.nan,
        equivalence_p=float(np.max([each.equivalence_p for row in tests for each in row])),
        method=f"{test.method}, of each value against each",
        standard_error=test.standard_error if test.is_without_spread else np.nan,
        smallest_p=min(1.0, len(tests) * test.smallest_p),
    )
