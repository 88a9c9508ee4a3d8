"""Permutations of a few units: all of them, or a seeded sample."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 4999
EXACT_UP_TO = 7
"""Largest number of units for which all orders are tried."""

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


def orders_of(count: int, seed: int) -> Indices:
    """Orders of `count` units, int64 (orders, count), read-only. The first is the identity."""
    return _orders_of(count, seed, PERMUTATIONS)


@lru_cache(maxsize=16)
def _orders_of(count: int, seed: int, permutations: int) -> Indices:
    if count <= EXACT_UP_TO:
        orders = np.array(list(itertools.permutations(range(count))), dtype=np.int64)
    else:
        drawn = np.tile(np.arange(count), (permutations, 1))
        drawn = np.random.default_rng(seed).permuted(drawn, axis=1)
        orders = np.vstack([np.arange(count)[None], drawn])
    orders.flags.writeable = False
    return orders


def smallest_p(count: int) -> float:
    """The smallest two-sided p-value that `orders_of` allows."""
    return 2 / (math.factorial(count) if count <= EXACT_UP_TO else PERMUTATIONS + 1)


def one_sided(found: Values) -> tuple[Values, Values]:
    """The p-values of a statistic (orders, ...) being as large, and as small, as in the first order."""
    larger = (found >= found[0] - 1e-12).mean(0)
    smaller = (found <= found[0] + 1e-12).mean(0)
    return np.asarray(larger), np.asarray(smaller)
