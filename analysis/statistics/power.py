"""The effects that a study of this size could find, and the size that a study needs."""

from __future__ import annotations

import math

import scipy.stats
from scipy.optimize import brentq

from analysis.statistics.finding import Test

POWER = 0.8
MOST = 100_000
"""Largest number of units that is planned for."""


def detectable_effect(test: Test, level: float) -> float:
    """The smallest distance from the null hypothesis that would be found with a probability of 80%.

    It follows from the power of a two-sided t test with the standard error of these data. It is a figure for planning,
    because the standard error is estimated. It is infinite if the smallest p-value of the test is too large to find any
    effect, and NaN if the standard error is not known.

    Args:
        test: the test of these data.
        level: a p-value below this level decides.
    """
    if test.smallest_p >= level:
        return math.inf
    if not (test.standard_error > 0 and test.freedom > 0):
        return math.nan
    return _noncentrality(test.freedom, level) * test.standard_error


def units_needed(test: Test, size: float, level: float) -> float:
    """The number of units that find an effect of this size with a probability of 80%; NaN if it is not known.

    Args:
        test: the test of these data. Its standard error falls with the root of the number of units.
        size: distance of the effect from the null hypothesis.
        level: a p-value below this level decides.
    """
    if not (test.standard_error > 0 and test.freedom > 0 and abs(size) > 0):
        return math.nan
    # means on which the units spend degrees of freedom
    spent = test.units - test.freedom
    spread = test.standard_error * test.units**0.5

    def surplus(units: float) -> float:
        freedom = max(1.0, units - spent)
        return abs(size) / (spread / units**0.5) - _noncentrality(freedom, level)

    fewest = spent + 1
    if surplus(fewest) >= 0:
        return math.ceil(fewest)
    return math.ceil(brentq(surplus, fewest, MOST) - 1e-6) if surplus(MOST) > 0 else math.inf


def draws_needed(allowed: float, level: float) -> int:
    """The number of draws without a failure that show, in a two-sided exact test, that failures are rare enough."""
    return math.floor(math.log(level / 2) / math.log(1 - allowed)) + 1


def _noncentrality(freedom: float, level: float) -> float:
    """The true value, in standard errors, that a two-sided t test finds with the given power."""
    critical = float(scipy.stats.t.isf(level / 2, freedom))
    # the far tail adds less than the level; for large arguments SciPy's non-central t fails, but t is near normal
    if freedom > 500 or critical > 100:
        return critical + float(scipy.stats.norm.ppf(POWER)) * (1 + critical**2 / (2 * freedom)) ** 0.5
    return float(
        brentq(
            lambda shift: float(scipy.stats.nct.sf(critical, freedom, shift)) - POWER, 0.0, 4 * critical + 10
        )
    )
