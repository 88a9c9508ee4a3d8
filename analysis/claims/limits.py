"""The values that a quantity can have, as far as its unit tells, by which intervals and promises are cut."""

from __future__ import annotations

import math

from analysis.claims.quantities import Quantity

LIMITS = {"share": (-1.0, 1.0), "cosine": (-1.0, 1.0)}
"""Unit -> the smallest and the largest number. A share may be one less another."""
Limits = tuple[float, float]


def limits_of(what: Quantity) -> Limits:
    """The smallest and the largest value of a quantity."""
    low, high = LIMITS.get(what.unit, (-math.inf, math.inf))
    if what.unit == "cosine" and what.of is not None:
        low, high = low - high, high - low
    return (0.0 if what.never_negative else low), high


def limits_of_difference(what: Quantity) -> Limits:
    """The smallest and the largest difference of two values of a quantity."""
    low, high = limits_of(what)
    return low - high, high - low
