"""Student's interval, test and equivalence test of an estimate with a standard error and its degrees of freedom."""

from __future__ import annotations

import math

from scipy.special import stdtr, stdtrit

from analysis.statistics.finding import Region, Test
from analysis.statistics.without_spread import Signs

CONFIDENCE = 0.95


def student(
    estimand: str,
    estimate: float,
    error: float,
    freedom: float,
    *,
    units: int,
    counted: str,
    method: str,
    signs: Signs,
    null: Region = (0.0, 0.0),
    margin: float = math.nan,
) -> Test:
    """A two-sided t test against the nearest value of the null region, and two one-sided t tests against the margin.

    The p-value of equivalence is twice that of the worse one-sided test, so that it is below 5% if the 95% interval
    lies within the margin. At the edge of the margin, equivalence and a difference beyond the margin are each found in
    2.5% of cases.

    If the values have no spread, a t test would divide by zero, and an interval would have no width. A sign test then
    takes the test's place, where it can, and the ends of the interval are NaN.

    Args:
        estimand: `THESE` or `LIKE_THESE`.
        estimate: the number.
        error: its standard error. If it is NaN, or has no degrees of freedom, no test is possible.
        freedom: degrees of freedom of the standard error.
        units: number of values of which the estimate is the mean.
        counted: word for these values.
        method: name of the t test.
        signs: what a sign test may rest on if the values have no spread.
        null: values that the null hypothesis allows.
        margin: margin of equivalence; NaN for no margin.
    """
    if not (freedom > 0 and math.isfinite(error)):
        why = f"too few {counted}"
        return Test(estimand, estimate, method=why, units=units, counted=counted, smallest_p=1.0)
    if abs(estimate) <= signs.rounding:
        estimate = 0.0
    if signs.is_rounding(error):
        return Test(
            estimand,
            estimate,
            p_value=signs.p_beyond(null),
            equivalence_p=signs.p_within(margin),
            method=f"{'sign test' if signs.values else 'none'}, as the {counted} have no spread",
            units=units,
            counted=counted,
            standard_error=0.0,
            freedom=freedom,
            smallest_p=signs.smallest_p,
        )
    beyond = max(null[0] - estimate, estimate - null[1], 0.0)
    within = margin - abs(estimate)
    p_value = 2 * float(stdtr(freedom, -beyond / error)) if beyond else 1.0
    equivalence = 2 * float(stdtr(freedom, -within / error))
    low, high = student_interval(estimate, error, freedom)
    return Test(
        estimand,
        estimate,
        low=low,
        high=high,
        p_value=min(1.0, p_value),
        equivalence_p=min(1.0, equivalence) if math.isfinite(margin) else math.nan,
        method=method,
        units=units,
        counted=counted,
        standard_error=error,
        freedom=freedom,
    )


def student_interval(estimate: float, error: float, freedom: float) -> tuple[float, float]:
    """The 95% interval; NaN without degrees of freedom or spread."""
    if not (freedom > 0 and 0 < error < math.inf):
        return math.nan, math.nan
    half = error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return estimate - half, estimate + half
