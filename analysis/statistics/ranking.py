"""Mean ranks of methods over data sets, and which of them differ, by a permutation test.

A cell is a data set with a kind and a rate of noise. Its seeds are averaged before methods are ranked within the cell.
Cells of one data set share images, networks and test samples, so that they are not independent: the independent unit is
the data set. A method's mean rank is the mean over data sets of its mean rank in the cells of each.

The test is Friedman's, and the critical difference takes the place of Nemenyi's (Demšar 2006, JMLR 7, section 3.2.2),
but their distributions are drawn: if methods do not differ, the methods of a data set may be exchanged in all of its
cells at once, whatever the cells have in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from analysis.statistics.methods import without_rounding
from analysis.statistics.resampling import Values
from analysis.statistics.student import CONFIDENCE

DRAWS = 10_000
"""Permutations that are drawn. A p-value of 5% has a standard error of 0.2%."""
ROUNDING = 1e-9
"""Mean ranks that differ by less are equal."""


@dataclass(frozen=True)
class Ranking:
    """The ranks of methods, 1 for the best.

    Attributes:
        methods: titles, in the order of the scores' columns.
        data_sets: the data set of each cell.
        ranks: float64 (cells, methods); equal scores share the mean of their ranks.
        mean: float64 (methods,), mean over data sets of the mean rank in the cells of each.
        low: float64 (methods,), lower ends of 95% t intervals of the mean rank over data sets like these; NaN for one.
        high: float64 (methods,), upper ends.
        p_value: of the test that no method ranks differently; NaN for one data set.
        critical_difference: at 5%, over all pairs together, only mean ranks that differ by more are told apart; NaN for
            one data set.
    """

    methods: list[str]
    data_sets: list[str]
    ranks: Values
    mean: Values
    low: Values
    high: Values
    p_value: float
    critical_difference: float

    @property
    def cells(self) -> int:
        """The number of cells."""
        return len(self.ranks)

    @property
    def data_set_count(self) -> int:
        """The number of data sets."""
        return len(set(self.data_sets))

    @property
    def order(self) -> NDArray[np.int64]:
        """The methods from the best mean rank to the worst."""
        return self.mean.argsort(kind="stable")

    def differs(self, first: int, second: int) -> bool:
        """Whether two methods are told apart: the test rejects, and their mean ranks differ enough."""
        distance = abs(self.mean[first] - self.mean[second])
        return self.p_value < 1 - CONFIDENCE and bool(distance > self.critical_difference + ROUNDING)

    def groups(self) -> list[list[int]]:
        """The largest groups of neighbors in `order` of which no two are told apart, groups of one left out."""
        order = self.order.tolist()
        found: list[list[int]] = []
        for start in range(len(order)):
            end = start
            while end + 1 < len(order) and not self.differs(order[start], order[end + 1]):
                end += 1
            if end > start and (not found or order[end] not in found[-1]):
                found.append(order[start : end + 1])
        return found


def rank_methods(
    methods: list[str], scores: ArrayLike, data_sets: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> Ranking:
    """Ranks methods by their scores in each cell.

    Args:
        methods: titles.
        scores: (cells, methods), larger is better; NaN, as of a training that diverged, is worse than any number.
        data_sets: the data set of each cell.
        draws: number of permutations.
        seed: seed of the permutations.

    Raises:
        ValueError: fewer than two methods or two cells, or not one data set for each cell.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(methods) or min(table.shape) < 2:
        raise ValueError(f"scores: must be (cells, methods), at least 2 of both, got shape {table.shape}")
    if len(data_sets) != len(table):
        raise ValueError(f"data_sets: must be one for each of {len(table)} cells, got {len(data_sets)}")
    ranks = np.stack([_ranks_of(row) for row in table])
    of_cell = np.array(data_sets)
    of_data = np.stack([ranks[of_cell == name].mean(0) for name in dict.fromkeys(data_sets)])
    mean = of_data.mean(0)
    low = high = np.full(len(methods), np.nan)
    p_value = difference = math.nan
    if len(of_data) > 1:
        quantile = float(stdtrit(len(of_data) - 1, (1 + CONFIDENCE) / 2))
        half = of_data.std(0, ddof=1) / math.sqrt(len(of_data)) * quantile
        low, high = np.maximum(mean - half, 1.0), np.minimum(mean + half, len(methods))
        p_value, difference = _permutation_test(of_data, draws, seed)
    return Ranking(methods, list(data_sets), ranks, mean, low, high, p_value, difference)


def _ranks_of(scores: Values) -> Values:
    """Ranks from 1, the largest score first; equal scores share the mean of their ranks."""
    numbers = np.where(np.isnan(scores), -np.inf, without_rounding(scores, np.abs(scores)))
    larger = (numbers[None, :] > numbers[:, None]).sum(1)
    equal = (numbers[None, :] == numbers[:, None]).sum(1)
    return larger + (equal + 1) / 2


def _permutation_test(of_data: Values, draws: int, seed: int) -> tuple[float, float]:
    """The p-value of Friedman's statistic, and the critical difference of mean ranks at 5%.

    Args:
        of_data: (data sets, methods), mean ranks in each data set.
        draws: number of permutations.
        seed: seed of the permutations.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.permuted(np.broadcast_to(of_data, (draws, *of_data.shape)), axis=2).mean(1)
    center = of_data.mean()
    observed = ((of_data.mean(0) - center) ** 2).sum()
    # the observed order is one of those that are equally probable
    reached = 1 + (((drawn - center) ** 2).sum(1) >= observed - ROUNDING).sum()
    distances = np.sort(np.ptp(drawn, axis=1))[::-1]
    exceeded = math.floor((1 - CONFIDENCE) * (draws + 1)) - 1
    return float(reached / (draws + 1)), float(distances[max(exceeded, 0)])
