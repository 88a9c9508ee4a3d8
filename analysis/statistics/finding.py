"""The result of a statistic: one test for each of the two questions, and the number in each place."""

from __future__ import annotations

import math
from dataclasses import dataclass

THESE = "these cells"
LIKE_THESE = "data like these"

FEWEST_DATA_SETS = 6
"""With at least this number of data sets, their population is judged; else the cells at hand.

The cells of a data set, its kinds and rates of noise, are alike, and say little more of other data than one of them.
For fewer data sets, a test that assumes only symmetry has no p-value below 5%: five data sets of one sign occur by
chance in 2 of 2^5 cases, which is 6%.
"""

ROUNDING = 1e-12
"""A standard error that is a smaller share of the estimate is rounding."""

Region = tuple[float, float]
"""Values that the null hypothesis allows, from the first to the second; (0, 0): no effect."""


@dataclass(frozen=True)
class Test:
    """One number with its interval, and the test of a null hypothesis about the number.

    Attributes:
        estimand: whether the number is a property of these cells, `THESE`, or of data like these, `LIKE_THESE`.
        estimate: the number; NaN if nothing could be compared.
        low: lower end of the 95% interval; NaN if the values have no spread.
        high: upper end of the interval.
        p_value: two-sided p-value of the null hypothesis; NaN if no test was possible.
        equivalence_p: p-value of the null hypothesis that the number is at least as far from zero as the margin; NaN if
            no test was possible.
        method: name of the test.
        units: number of independent units.
        counted: word for the units, such as "pairs" or "data sets".
        standard_error: standard error of the estimate; NaN if it is not known.
        freedom: degrees of freedom of the standard error.
        smallest_p: the smallest p-value that the test can give with `units` units.
    """

    # without this, pytest takes the class for a test
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

    @property
    def is_without_spread(self) -> bool:
        """Whether the units are equal but for rounding, so that their spread says nothing of other units."""
        return self.standard_error <= ROUNDING * abs(self.estimate)


@dataclass(frozen=True)
class Part:
    """The number in one cell (or one series of cells).

    Attributes:
        name: name of the cell.
        estimate: the number.
        low: lower end of the 95% t interval; NaN if the cell has no spread.
        high: upper end of the interval.
        samples: number of units.
    """

    name: str
    estimate: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Finding:
    """The tests of one number.

    Attributes:
        these: the test about the cells at hand.
        like_these: the test about the population of data sets.
        places: number of cells (or series of cells).
        place: word for the places: "cells" or "series".
        parts: the number in each place; empty for a single place.
        reversal_p: p-value of the null hypothesis that no two places have opposite signs.
        lost: number of units that could not enter, because a run diverged, did not converge or was not measured.
        data_sets: number of independent data sets, the units of the test about the population; 0 if there is no such
            test.
        single: cells of one value, which says nothing of their spread, where others have several. What is said of these
            cells, their parts and opposite signs leaves them out.
    """

    these: Test
    like_these: Test
    places: int
    place: str = "cells"
    parts: tuple[Part, ...] = ()
    reversal_p: float = math.nan
    lost: int = 0
    data_sets: int = 0
    single: tuple[str, ...] = ()

    @property
    def deciding(self) -> Test:
        """The test that decides: that of the population from enough data sets on, else that of the cells at hand."""
        return self.like_these if self.data_sets >= FEWEST_DATA_SETS else self.these


def no_population(these: Test) -> Test:
    """The test about the population where none is possible: it has the same number and no p-value."""
    return Test(
        LIKE_THESE,
        these.estimate,
        method="none over data sets",
        units=these.units,
        counted=these.counted,
        smallest_p=1.0,
    )


def nothing_found(why: str, units: int, counted: str, lost: int) -> Finding:
    """The finding of data that allow no estimate."""
    these, like_these = (
        Test(estimand, method=why, units=units, counted=counted, smallest_p=1.0)
        for estimand in (THESE, LIKE_THESE)
    )
    return Finding(these, like_these, places=0, lost=lost)
