"""What a study of this size could have found, and what size it would take."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from statsmodels.stats.power import TTestPower

from analysis.statistics.effect import SIGNIFICANCE, Effect

POWER = 0.8
FEW = 10
"""Up to so many pairs the sign-flip test's own power is computed."""
MOST = 100_000
"""More units than this are not planned for."""


def detectable_effect(effect: Effect) -> float:
    """The smallest true effect that would be found with a probability of 80% with as many units.

    By the power of a t test, for few pairs of the sign-flip test itself, at the family's error rate over its tests: a
    planning figure, as the spread is estimated from these units. Infinity where no effect, however large, could be
    found: the test's smallest p-value is too large. NaN where the spread is not known.
    """
    level = SIGNIFICANCE / effect.tests
    if effect.smallest_p >= level:
        return math.inf
    count = effect.samples - _used(effect)
    if count < 2 or not effect.spread > 0:
        return math.nan
    if effect.counted == "pairs" and count <= FEW:
        size = _sign_flip_size(count, level)
    else:
        size = float(brentq(lambda d: _power(d, count, level) - POWER, 1e-6, 1e4))
    found = size * effect.spread
    return math.tanh(found) if effect.counted == "methods" else found


def samples_needed(effect: Effect, size: float) -> float:
    """How many units it takes to find a true effect of that size with a probability of 80%.

    Never fewer than the sign-flip test needs for its smallest p-value to count. Infinity beyond `MOST`; NaN
    where the spread is not known.
    """
    if not effect.spread > 0 or not abs(size) > 0:
        return math.nan
    level = SIGNIFICANCE / effect.tests
    fewest = math.floor(math.log2(2 / level)) + 1 if effect.counted == "pairs" else 2
    if effect.counted == "methods":
        size = math.atanh(min(abs(size), 1 - 1e-9))
    standardised = abs(size) / effect.spread
    if _power(standardised, MOST, level) < POWER:
        return math.inf
    if effect.counted == "pairs":
        while fewest <= FEW:
            if standardised >= _sign_flip_size(fewest, level):
                return fewest
            fewest += 1
    if _power(standardised, fewest, level) >= POWER:
        return fewest + _used(effect)
    found = brentq(lambda n: _power(standardised, n, level) - POWER, fewest, MOST)
    # the root is known to about 1e-12 only
    return math.ceil(found - 1e-6) + _used(effect)


@lru_cache
def _sign_flip_size(count: int, level: float) -> float:
    """The mean, in standard deviations, that the exact sign-flip test of normal pairs finds with a probability of 80%.

    By 4,000 draws, always the same. A t test would promise 80% where the sign-flip test, with few patterns of signs,
    finds 60 to 70%.
    """
    noise = np.random.default_rng(0).normal(size=(4000, count))
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=count)))
    # of the patterns' sums the largest that a pattern may have: as many as the level allows, on two sides
    allowed = math.floor(level * len(signs) / 2 + 1e-9)

    def power(size: float) -> float:
        values = noise + size
        sums = np.partition(values @ signs.T, -allowed, axis=1)[:, -allowed]
        return float((values.sum(1) >= sums - 1e-12).mean())

    return float(brentq(lambda size: power(size) - POWER, 0.0, 20.0, xtol=1e-3))


def _used(effect: Effect) -> int:
    """Units that tau's standard error does not count."""
    return 4 if effect.counted == "methods" else 0


def _power(size: float, count: float, level: float) -> float:
    """Of a two-sided one-sample t test; 1 where statsmodels' non-central t overflows."""
    power = float(TTestPower().power(size, count, level))
    return power if math.isfinite(power) else 1.0
