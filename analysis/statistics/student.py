"""Student's interval, test and equivalence test of an estimate with a standard error and its degrees of freedom."""

from __future__ import annotations

import math

from scipy.special import stdtr, stdtrit

from analysis.statistics.finding import ROUNDING, Test

CONFIDENCE = 0.95

Region = tuple[float, float]
"""Values that the null hypothesis allows, from the first to the second; (0, 0): no effect."""


def student(
    estimand: str,
    estimate: float,
    error: float,
    freedom: float,
    *,
    units: int,
    counted: str,
    method: str,
    null: Region = (0.0, 0.0),
    margin: float = math.nan,
) -> Test:
    """A two-sided t test against the nearest value of the null region, and two one-sided t tests against the margin.

    The p-value of equivalence is twice that of the worse one-sided test, so that it is below 5% if the 95% interval
    lies within the margin. At the edge of the margin, equivalence and a difference beyond the margin are each found in
    2.5% of cases.

    If the values have no spread, a t test would divide by zero. A sign test then takes its place: if the median lay in
    the null region, each of n independent values would lie on that side with a probability of at least one half.

    Args:
        estimand: `THESE` or `LIKE_THESE`.
        estimate: the number.
        error: its standard error. If it is NaN, or has no degrees of freedom, no test is possible.
        freedom: degrees of freedom of the standard error.
        units: number of values of which the estimate is the mean.
        counted: word for these values.
        method: name of the test.
        null: values that the null hypothesis allows.
        margin: margin of equivalence; NaN for no margin.
    """
    if not (freedom > 0 and math.isfinite(error)):
        why = f"too few {counted}"
        return Test(estimand, estimate, method=why, units=units, counted=counted, smallest_p=1.0)
    beyond = max(null[0] - estimate, estimate - null[1], 0.0)
    within = margin - abs(estimate)
    if error > ROUNDING * abs(estimate):
        p_value = 2 * float(stdtr(freedom, -beyond / error)) if beyond else 1.0
        equivalence = 2 * float(stdtr(freedom, -within / error))
        smallest = 0.0
    else:
        p_value = 2 * 0.5**units if beyond > 0 else 1.0
        equivalence = 2 * 0.5**units if within > 0 else 1.0
        smallest = 2 * 0.5**units
    half = error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return Test(
        estimand,
        estimate,
        estimate - half,
        estimate + half,
        min(1.0, p_value),
        min(1.0, equivalence) if math.isfinite(margin) else math.nan,
        method,
        units,
        counted,
        error,
        freedom,
        smallest,
    )


def student_interval(estimate: float, error: float, freedom: float) -> tuple[float, float]:
    """The 95% interval; NaN without degrees of freedom."""
    if not (freedom > 0 and math.isfinite(error)):
        return math.nan, math.nan
    half = error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return estimate - half, estimate + half
