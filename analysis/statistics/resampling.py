"""Permutations of a few units: all of them, or a seeded sample."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 4999
EXACT_UP_TO = 7
"""Largest number of units for which all orders are tried. Within groups, as many orders are."""

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


def orders_of(count: int, seed: int) -> Indices:
    """Orders of `count` units, int64 (orders, count), read-only. The first is the identity."""
    return orders_within((count,), seed)


def orders_within(groups: tuple[int, ...], seed: int) -> Indices:
    """As `orders_of`, of units that change places only within their group.

    Args:
        groups: the number of units in each group. Units of one group follow each other.
        seed: seed of the orders, where they are drawn.
    """
    # an argument, so that the cache follows the constant where tests ask for fewer
    return _orders_within(groups, seed, PERMUTATIONS)


@lru_cache(maxsize=16)
def _orders_within(groups: tuple[int, ...], seed: int, permutations: int) -> Indices:
    units = np.split(np.arange(sum(groups)), np.cumsum(groups)[:-1])
    if math.prod(map(math.factorial, groups)) <= math.factorial(EXACT_UP_TO):
        of_groups = itertools.product(*map(itertools.permutations, units))
        orders = np.array([np.concatenate(order) for order in of_groups], dtype=np.int64)
    else:
        generator = np.random.default_rng(seed)
        drawn = [generator.permuted(np.tile(group, (permutations, 1)), axis=1) for group in units]
        orders = np.vstack([np.arange(sum(groups))[None], np.hstack(drawn)])
    orders.flags.writeable = False
    return orders


def smallest_p(orders: Indices) -> float:
    """The smallest two-sided p-value that these orders allow."""
    return 2 / len(orders)


def one_sided(found: Values) -> tuple[Values, Values]:
    """The p-values of a statistic (orders, ...) being as large, and as small, as in the first order."""
    larger = (found >= found[0] - 1e-12).mean(0)
    smaller = (found <= found[0] + 1e-12).mean(0)
    return np.asarray(larger), np.asarray(smaller)
