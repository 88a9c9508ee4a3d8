"""What a statistic returns: one test for each of the two questions, and the same number place by place."""

from __future__ import annotations

import math
from dataclasses import dataclass

THESE = "these cells"
LIKE_THESE = "cells like these"

FEWEST_CELLS = 6
"""From this number of cells (or series of cells) on, the population of cells is judged; below, the cells at hand.

A test of fewer values that trusts only their symmetry has no p-value below 5%: five cells of one sign occur by chance
in 2 of 2^5 cases, which are 6%.
"""


@dataclass(frozen=True)
class Test:
    """One number with its interval, and the test of a null hypothesis about the number.

    Attributes:
        estimand: what the number is a property of: `THESE` or `LIKE_THESE`.
        estimate: the number; NaN if nothing could be compared.
        low: lower end of the 95% interval.
        high: upper end.
        p_value: two-sided, of the null hypothesis; NaN where no test was possible.
        equivalence_p: of the null hypothesis that the number is at least as far from zero as the margin.
        method: which test gave the p-value.
        units: how many independent units entered.
        counted: what the units are, such as "pairs" or "cells".
        standard_error: of the estimate; NaN where it is not known.
        freedom: degrees of freedom of the standard error.
        smallest_p: the smallest p-value that the test can give with `units` units.
    """

    # pytest takes classes of this name for tests
    __test__ = False

    estimand: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    equivalence_p: float = math.nan
    method: str = "none"
    units: int = 0
    counted: str = "pairs"
    standard_error: float = math.nan
    freedom: float = math.nan
    smallest_p: float = 0.0


@dataclass(frozen=True)
class Part:
    """The number in one cell (or one series of cells).

    Attributes:
        name: which cell.
        estimate: the number.
        low: lower end of the 95% t interval; NaN where the cell shows no spread.
        high: upper end.
        samples: how many units.
    """

    name: str
    estimate: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Finding:
    """What the data say of one number.

    Attributes:
        these: the test about the cells at hand.
        like_these: the test about the population of cells.
        places: how many cells (or series of cells) there are.
        place: what the places are called: "cells" or "series".
        parts: the number in each place; empty for a single place.
        reversal_p: of the null hypothesis that no two places have opposite signs.
        lost: how many units could not enter, because a run diverged, did not converge or was not measured.
    """

    these: Test
    like_these: Test
    places: int
    place: str = "cells"
    parts: tuple[Part, ...] = ()
    reversal_p: float = math.nan
    lost: int = 0

    @property
    def deciding(self) -> Test:
        """The test that decides: of the population where there are enough cells, else of the cells at hand."""
        return self.like_these if self.places >= FEWEST_CELLS else self.these


def nothing_found(why: str, units: int, counted: str, lost: int) -> Finding:
    """The finding of data from which nothing can be told."""
    these, like_these = (
        Test(estimand, method=why, units=units, counted=counted, smallest_p=1.0)
        for estimand in (THESE, LIKE_THESE)
    )
    return Finding(these, like_these, places=0, lost=lost)
