"""Sign tests of numbers whose values have no spread, where a t test would divide by zero.

If a median lay on the other side, each of n independent values would lie on this side with a probability of at most one
half. So n values on one side have a p-value of 0.5^n, and nothing is assumed of their distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.statistics.finding import ROUNDING, Region
from analysis.statistics.resampling import Values


@dataclass(frozen=True)
class Signs:
    """What a sign test of a mean may rest on.

    Attributes:
        numbers: float64 (n,), the medians of which the estimate is the mean: one for each cell. If their mean lay in
            the null region, at least one of them would.
        values: independent values behind the one with the fewest, which alone may be that one. 0: the estimate is no
            mean of medians, such as a slope, and the signs of values say nothing of it.
        size: a standard error that is a smaller share of this than `ROUNDING` is rounding.
    """

    numbers: Values
    values: int
    size: float

    def is_rounding(self, error: float) -> bool:
        """Whether a standard error is zero but for rounding."""
        return error <= self.rounding

    @property
    def rounding(self) -> float:
        """The size of rounding."""
        return ROUNDING * self.size

    @property
    def smallest_p(self) -> float:
        """The p-value if all numbers lie on one side; 1 if no sign test is possible."""
        return min(1.0, 2 * 0.5**self.values)

    def p_beyond(self, null: Region) -> float:
        """The two-sided p-value of a mean in the null region; NaN if the numbers do not all lie on one side of it."""
        if not self.values:
            return math.nan
        below, above = self.numbers < null[0] - self.rounding, self.numbers > null[1] + self.rounding
        if below.all() or above.all():
            return self.smallest_p
        return math.nan if below.any() or above.any() else 1.0

    def p_within(self, margin: float) -> float:
        """The p-value of a mean beyond the margin; NaN without a margin, or if a number lies beyond it."""
        lie_within = np.abs(self.numbers) < margin - self.rounding
        return self.smallest_p if self.values and lie_within.all() else math.nan


def opposite_signs_p(numbers: Values, counts: Values, rounding: float) -> float:
    """The p-value of the null hypothesis that no two medians have opposite signs; NaN for a single one.

    Each sign must be shown by a median of its own. The best of the medians shows it, times the medians that there are.

    Args:
        numbers: float64 (places,), the value that all values of a place have.
        counts: float64 (places,), number of values of each place.
        rounding: smaller numbers have no sign.
    """
    if len(numbers) < 2:
        return math.nan
    most = [float(counts[side].max(initial=0)) for side in (numbers > rounding, numbers < -rounding)]
    return min(1.0, len(numbers) * 0.5 ** min(most))
