"""The effects that a study of this size could find, and the size that a study needs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy

from analysis.statistics.finding import Test

POWER = 0.8
QUANTILES = (np.arange(500) + 0.5) / 500
"""Points of a distribution that stand for equal shares of it."""
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
    if not abs(size) > 0:
        return math.nan
    return _fewest_units(test, lambda error, freedom: abs(size) / error - _noncentrality(freedom, level))


def units_for_equivalence(test: Test, margin: float, level: float) -> float:
    """The number of units that show a number to lie within the margin with a probability of 80%, if it is zero.

    It follows from the power of the two one-sided t tests of `student`, whose p-value is twice the worse one's. NaN if
    it is not known.

    Args:
        test: the test of these data. Its standard error falls with the root of the number of units.
        margin: margin of equivalence.
        level: a p-value below this level decides.
    """
    if not margin > 0:
        return math.nan
    return _fewest_units(
        test, lambda error, freedom: _power_of_equivalence(margin / error, freedom, level) - POWER
    )


def _fewest_units(test: Test, surplus: Callable[[float, float], float]) -> float:
    """The smallest number of units with a surplus; NaN if the standard error is not known, infinite beyond `MOST`.

    Args:
        test: the test of these data. Its standard error falls with the root of the number of units.
        surplus: (standard error, degrees of freedom) -> a number that grows with the units, from 0 on enough.
    """
    if not (test.standard_error > 0 and test.freedom > 0):
        return math.nan
    # means on which the units spend degrees of freedom
    spent = test.units - test.freedom
    spread = test.standard_error * test.units**0.5

    def of_units(units: float) -> float:
        return surplus(spread / units**0.5, max(1.0, units - spent))

    fewest = spent + 1
    if of_units(fewest) >= 0:
        return math.ceil(fewest)
    return math.ceil(scipy.optimize.brentq(of_units, fewest, MOST) - 1e-6) if of_units(MOST) > 0 else math.inf


def _power_of_equivalence(margin: float, freedom: float, level: float) -> float:
    """The probability that an estimate of zero is shown to be within the margin, in true standard errors.

    The estimate must be nearer to zero than the margin less `critical` estimated standard errors; averaged over the
    distribution of the estimated one.
    """
    critical = float(scipy.stats.t.isf(level / 2, freedom))
    estimated = np.sqrt(scipy.stats.chi2.ppf(QUANTILES, freedom) / freedom)
    left = np.maximum(margin - critical * estimated, 0.0)
    return float((2 * scipy.stats.norm.cdf(left) - 1).mean())


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
        scipy.optimize.brentq(
            lambda shift: float(scipy.stats.nct.sf(critical, freedom, shift)) - POWER, 0.0, 4 * critical + 10
        )
    )
