"""Mean ranks of methods over cells, and which of them differ: Friedman's test, and Nemenyi's critical difference.

Source: Demšar 2006 (JMLR 7), sections 3.2.2 and 3.2.3. A cell is a data set with a kind and a rate of noise. The cell
is the independent unit: its seeds are averaged before methods are ranked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, stdtrit

from analysis.statistics.student import CONFIDENCE

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """The ranks of methods, 1 for the best.

    Attributes:
        methods: titles, in the order of the scores' columns.
        ranks: float64 (cells, methods); equal scores share the mean of their ranks.
        mean: float64 (methods,), mean rank over the cells.
        low: float64 (methods,), lower ends of 95% t intervals of the mean rank in cells like these.
        high: float64 (methods,), upper ends.
        p_value: of Friedman's test that no method ranks differently, in the form of Iman and Davenport.
        critical_difference: mean ranks that differ by less are not told apart at 5%, over all pairs together.
    """

    methods: list[str]
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
    def order(self) -> NDArray[np.int64]:
        """The methods from the best mean rank to the worst."""
        return self.mean.argsort(kind="stable")

    def differs(self, first: int, second: int) -> bool:
        """Whether two methods are told apart: the test rejects, and their mean ranks differ enough."""
        distance = abs(self.mean[first] - self.mean[second])
        return self.p_value < 1 - CONFIDENCE and bool(distance >= self.critical_difference)

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


def rank_methods(methods: list[str], scores: ArrayLike) -> Ranking:
    """Ranks methods by their scores in each cell.

    Args:
        methods: titles.
        scores: (cells, methods), larger is better; NaN, as of a training that diverged, is worse than any number.

    Raises:
        ValueError: fewer than two methods or two cells.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(methods) or min(table.shape) < 2:
        raise ValueError(f"scores: must be (cells, methods), at least 2 of both, got shape {table.shape}")
    ranks = np.stack([_ranks_of(row) for row in table])
    cells, count = ranks.shape
    mean = ranks.mean(0)
    half = ranks.std(0, ddof=1) / math.sqrt(cells) * float(stdtrit(cells - 1, (1 + CONFIDENCE) / 2))
    return Ranking(
        methods,
        ranks,
        mean,
        np.maximum(mean - half, 1.0),
        np.minimum(mean + half, count),
        friedman_p(ranks),
        critical_difference(cells, count),
    )


def _ranks_of(scores: Values) -> Values:
    """Ranks from 1, the largest score first; equal scores share the mean of their ranks."""
    numbers = np.where(np.isnan(scores), -np.inf, scores)
    larger = (numbers[None, :] > numbers[:, None]).sum(1)
    equal = (numbers[None, :] == numbers[:, None]).sum(1)
    return larger + (equal + 1) / 2


def friedman_p(ranks: Values) -> float:
    """The p-value of Friedman's test, corrected for ties, by the F statistic of Iman and Davenport (1980).

    Args:
        ranks: (cells, methods).
    """
    cells, count = ranks.shape
    between = cells * float(((ranks.mean(0) - (count + 1) / 2) ** 2).sum())
    within = float(((ranks - (count + 1) / 2) ** 2).sum())
    if within == 0:
        # every cell has all methods equal
        return 1.0
    rest = within - between
    if rest <= 1e-12 * within:
        # every cell has the same ranks, of which there are count! orders
        return float(math.factorial(count)) ** (1 - cells)
    statistic = between * (cells - 1) / rest
    return float(fdtrc(count - 1, (count - 1) * (cells - 1), statistic))


@cache
def critical_difference(cells: int, count: int) -> float:
    """Nemenyi's critical difference of mean ranks at 5%."""
    # loaded here, because it takes long
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(CONFIDENCE, count, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(count * (count + 1) / (6 * cells))
