"""What a study of this size could have found, and what size it would take."""

from __future__ import annotations

import math

import scipy.stats
from scipy.optimize import brentq

from analysis.statistics.finding import Test

POWER = 0.8
MOST = 100_000
"""More units than this are not planned for."""


def detectable_effect(test: Test, level: float) -> float:
    """The smallest distance from the null hypothesis that would be found with a probability of 80%.

    By the power of a two-sided t test with the standard error of these data: a planning figure, as the standard error
    is estimated. Infinity where no effect, however large, could be found, because the smallest p-value of the test is
    too large. NaN where the standard error is not known.

    Args:
        test: what was found.
        level: below which a p-value decides.
    """
    if test.smallest_p >= level:
        return math.inf
    if not (test.standard_error > 0 and test.freedom > 0):
        return math.nan
    return _noncentrality(test.freedom, level) * test.standard_error


def units_needed(test: Test, size: float, level: float) -> float:
    """How many units it takes to find an effect of that size with a probability of 80%; NaN if that is not known.

    Args:
        test: what was found; its standard error falls with the root of the number of units.
        size: distance of the effect from the null hypothesis.
        level: below which a p-value decides.
    """
    if not (test.standard_error > 0 and test.freedom > 0 and abs(size) > 0):
        return math.nan
    # means that the units spend degrees of freedom on
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
    """How many draws without a failure show that failures are rarer than allowed, in a two-sided exact test."""
    return math.floor(math.log(level / 2) / math.log(1 - allowed)) + 1


def _noncentrality(freedom: float, level: float) -> float:
    """The true value, in standard errors, that a two-sided t test finds with the given power."""
    critical = float(scipy.stats.t.isf(level / 2, freedom))
    # the far tail adds less than the level; SciPy's non-central t fails for large arguments, where t is near normal
    if freedom > 500 or critical > 100:
        return critical + float(scipy.stats.norm.ppf(POWER)) * (1 + critical**2 / (2 * freedom)) ** 0.5
    return float(
        brentq(
            lambda shift: float(scipy.stats.nct.sf(critical, freedom, shift)) - POWER, 0.0, 4 * critical + 10
        )
    )
