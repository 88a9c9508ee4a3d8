"""Orders of families that change places only among neighbors in a third quantity."""

from __future__ import annotations

import numpy as np
import scipy

from analysis.statistics.resampling import Indices, Values, orders_within

FEWEST_NEIGHBORS = 3
"""Least number of families in a group, but for ties."""


def orders_among_neighbors(z: Values, seed: int) -> Indices:
    """Orders of families within groups of three or four that are next to each other in z, int64 (orders, families).

    Powers of the rank of z follow no step, and do not know that residuals scatter more at some z. Where two quantities
    depend on z alone, what is left of both is then alike for the same z, and orders of all families show that as an
    association: of studies with 9, 12 and 20 families, 13%, 17% and 30% along several steps, and 10%, 20% and 23% where
    two families scatter more. Among neighbors it stays in all orders: 5%, 8% and 14%, and 4%, 5% and 7%.

    The order must be one for all cells, because the families of all cells are the same. So neighbors are those in the
    mean over cells of the rank of z. Families of the same mean rank are not parted: which of them comes first would
    depend on their names. Six families have 36 orders, which is too few for a p-value below 5%.

    Args:
        z: float64 (cells, families).
        seed: seed of the orders, where they are drawn.
    """
    ranks = scipy.stats.rankdata(z, axis=1).mean(0)
    by_rank = np.argsort(ranks, kind="stable")
    within = orders_within(_sizes_of_groups(ranks[by_rank]), seed)
    orders = np.empty_like(within)
    orders[:, by_rank] = by_rank[within]
    return orders


def _sizes_of_groups(ranks: Values) -> tuple[int, ...]:
    """The sizes of groups of neighbors, of sorted mean ranks (families,)."""
    groups = np.array_split(ranks, max(1, len(ranks) // FEWEST_NEIGHBORS))
    firsts = np.cumsum([0, *map(len, groups[:-1])])
    # a group begins with the first of those that are tied
    begins = np.unique(np.searchsorted(ranks, ranks[firsts]))
    return tuple(np.diff([*begins, len(ranks)]).tolist())
