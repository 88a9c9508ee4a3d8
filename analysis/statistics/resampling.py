"""Permutations of a few units: all of them, or a seeded sample."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 4999
EXACT_UP_TO = 7
"""Of so many units all orders are tried."""

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


def orders_of(count: int, seed: int) -> Indices:
    """Orders of `count` units, int64 (orders, count), the first of which changes nothing."""
    if count <= EXACT_UP_TO:
        return np.array(list(itertools.permutations(range(count))), dtype=np.int64)
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(count), (PERMUTATIONS, 1)), axis=1)
    return np.vstack([np.arange(count)[None], drawn])


def smallest_p(count: int) -> float:
    """The smallest two-sided p-value that `orders_of` allows."""
    return 2 / (math.factorial(count) if count <= EXACT_UP_TO else PERMUTATIONS + 1)


def one_sided(found: Values) -> tuple[Values, Values]:
    """p-values that a statistic is as large, and as small, as in the first of its orders (orders, ...)."""
    larger = (found >= found[0] - 1e-12).mean(0)
    smaller = (found <= found[0] + 1e-12).mean(0)
    return np.asarray(larger), np.asarray(smaller)
