"""Whether two numbers have opposite signs."""

from __future__ import annotations

import numpy as np
import scipy.special

from analysis.statistics.resampling import Values


def reversal_p(numbers: Values, errors: Values, freedom: float) -> float:
    """The p-value of the null hypothesis that independent numbers are all at least zero, or all at most zero.

    The test for qualitative interactions of Gail and Simon (1985, Biometrics 41), with F in place of chi-squared
    distributions because the variance is estimated. The statistic is the smaller of two sums of squared t values: that
    over the positive and that over the negative numbers. In the least favorable case one number is far from zero and
    the others are zero.

    Args:
        numbers: float64 (places,).
        errors: float64 (places,), their standard errors, above zero.
        freedom: degrees of freedom of the errors.
    """
    count = len(numbers)
    if not _can_be_tested(errors, freedom):
        return np.nan
    squares = (numbers / errors) ** 2
    smaller = min(float(squares[numbers > 0].sum()), float(squares[numbers < 0].sum()))
    if smaller == 0:
        return 1.0
    others = np.arange(1, count)
    chances = scipy.special.comb(count - 1, others) * 0.5 ** (count - 1)
    return float((chances * scipy.special.fdtrc(others, freedom, smaller / others)).sum())


def dependent_reversal_p(numbers: Values, errors: Values, freedom: float) -> float:
    """As `reversal_p`, of numbers that may depend on each other in any way.

    Each sign must be shown by one number alone: its one-sided p-value, times the number of numbers (Bonferroni).
    """
    count = len(numbers)
    if not _can_be_tested(errors, freedom):
        return np.nan
    scores = numbers / errors
    worst = max(
        float(scipy.special.stdtr(freedom, -scores.max())), float(scipy.special.stdtr(freedom, scores.min()))
    )
    return min(1.0, count * worst)


def _can_be_tested(errors: Values, freedom: float) -> bool:
    """Whether there are two numbers or more, all with a standard error."""
    return len(errors) > 1 and freedom > 0 and bool((np.isfinite(errors) & (errors > 0)).all())
