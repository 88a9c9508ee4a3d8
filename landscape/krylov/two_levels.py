"""Trace and squared Frobenius norm of an operator, with the help of a cheap operator that resembles it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from landscape.checks import check_rtol
from landscape.krylov.probes import Probes, Signs, Sketched, random_directions
from landscape.krylov.stopping import WIDER_QUANTILE
from landscape.krylov.traces import (
    PRODUCTS_PER_PROBE,
    Estimate,
    TraceAndSquaredNorm,
    in_float64,
    random_signs,
)
from landscape.operator import Operator

FIRST = 6
"""Probes of a level before the errors are looked at for the first time."""

GROWTH = 1.5
"""Most by which the number of probes grows from look to look."""

LEAST_GROWTH = 1.1
"""Least by which it grows, so that looks stay few."""

DECAY = {"xtrace": 2.0, "hutchinson": 1.0}
"""The power of the number of probes with which the variance falls. XTrace's depends on the spectrum: 2 is that of the
Hessians of small networks. It foresees how many probes are enough, and looks again where they are not."""


@dataclass
class _Level:
    """The probes of one of the two parts of a trace.

    Attributes:
        probes: draws the probes and keeps their values.
        cost: the cost of a probe, in products with the whole operator.
        most: most probes that may be drawn.
        decay: the power of the number of probes with which the variance falls.
        drawn: number of probes.
        means: of the probes' values, and their variances, for the trace and for the squared norm.
    """

    probes: Probes
    cost: float
    most: int
    decay: float
    drawn: int = 0
    means: tuple[tuple[float, float], ...] = ()

    @property
    def spent(self) -> float:
        return self.drawn * self.cost

    @property
    def variance(self) -> float:
        """The variance of the mean of the probes' traces."""
        return self.means[0][1]

    def next_count(self, enough: float) -> int:
        """The number of probes of the next look: as many as are foreseen to bring the variance to `enough`."""
        most = int(GROWTH * self.drawn)
        foreseen = most
        if enough > 0:
            foreseen = math.ceil(min(self.drawn * (self.variance / enough) ** (1 / self.decay), most))
        return min(max(foreseen, math.ceil(LEAST_GROWTH * self.drawn)), self.most)

    def grow(self, wanted: int) -> None:
        """Draws as many probes as there are fewer than wanted."""
        self.probes.grow(wanted - self.drawn)
        self.drawn = wanted
        self.means = tuple(
            (values.mean().item(), (values.var() / len(values) + covariance).item())
            for values, covariance in self.probes.values()
        )


def two_level_trace(
    operator: Operator,
    part: Operator,
    share: float,
    *,
    method: str = "xtrace",
    rtol: float | None = 0.05,
    max_products: int = 200,
    max_on_part: int | None = None,
    generator: torch.Generator,
) -> TraceAndSquaredNorm:
    """Estimates the trace and the squared norm of A from many probes of a cheap B, and few of the difference.

    tr A = tr B + E[w^T (A - B) w] for random signs w. Both terms are estimated without bias, from different probes, so
    that the sum of a fixed budget has no bias, whatever B is. Stopping by `rtol` adds a bias below the stated error.
    The nearer B is to A, the fewer products with A are needed. The same holds for the squared norm with
    ||A w||^2 - ||B w||^2.

    The level with the larger variance for its cost gets more probes. In the optimum of two levels both are equal (Giles
    2015, section 1.3). With an `rtol` a level gets no more than are foreseen to be enough. The interval is Student's,
    with Welch's degrees of freedom.

    Args:
        operator: A.
        part: B, such as the matrix of a random part of the samples. It must not depend on the probes.
        share: the cost of a product with B, in products with A.
        method: of tr B, `"xtrace"` or `"hutchinson"`.
        rtol: sampling ends when the 95% interval of the trace is within +-2 rtol |value|; None spends the whole budget.
        max_products: most that may be spent, in products with A.
        max_on_part: most products with B for tr B, each of which keeps two vectors in float64 with XTrace;
            `max_products` if not given.
        generator: draws the probes.

    Returns:
        Its `products` are those with A, and those with B times `share`, rounded up.

    Raises:
        ValueError: an argument is out of range.
    """
    if method not in ("xtrace", "hutchinson"):
        raise ValueError(f"method: must be xtrace or hutchinson, got {method!r}")
    if not 0 < share < 1:
        raise ValueError(f"share: must lie between 0 and 1, got {share}")
    check_rtol(rtol)
    if part.dimension != operator.dimension:
        raise ValueError(f"part: has {part.dimension} rows, and the operator {operator.dimension}")
    most_on_part = max_products if max_on_part is None else max_on_part
    on_part, differences = _levels(operator, part, share, method, max_products, most_on_part, generator)
    least = max(math.ceil(FIRST * (on_part.cost + differences.cost)), FIRST * PRODUCTS_PER_PROBE[method])
    if max_products < least or min(on_part.most, differences.most) < FIRST:
        raise ValueError(
            f"max_products: a trace with the help of a part needs at least {least}, and a matrix of at least "
            f"{FIRST * PRODUCTS_PER_PROBE[method]} rows, got {max_products} and {operator.dimension}"
        )
    on_part.grow(FIRST)
    differences.grow(FIRST)
    rounding = 10 * torch.finfo(operator.dtype).eps
    while True:
        found = _sum(on_part, differences, rounding, rtol)
        if not math.isfinite(found.trace.value) or (found.converged and rtol is not None):
            return found
        enough = (
            0.0
            if rtol is None
            else _enough_variance(found.trace, on_part.variance + differences.variance, rtol)
        )
        growth = _growth(on_part, differences, enough, max_products)
        if growth is None:
            return found
        level, count = growth
        level.grow(count)


def _levels(
    operator: Operator,
    part: Operator,
    share: float,
    method: str,
    max_products: int,
    max_on_part: int,
    generator: torch.Generator,
) -> tuple[_Level, _Level]:
    n, device = operator.dimension, operator.device

    def signs() -> Tensor:
        return random_signs(n, device, generator)

    nothing = torch.zeros(n, 0, dtype=torch.float64, device=device)
    image = in_float64(part)
    of_part: Probes = Signs(image, signs)
    if method == "xtrace":
        of_part = Sketched(image, lambda count: random_directions(nothing, count, generator), nothing, method)
    each = PRODUCTS_PER_PROBE[method]
    return (
        _Level(of_part, each * share, min(max_on_part, n) // each, DECAY[method]),
        _Level(Signs(in_float64(operator), signs, less=image), 1 + share, max_products, DECAY["hutchinson"]),
    )


def _enough_variance(trace: Estimate, variance: float, rtol: float) -> float:
    """The variance with which the interval would be short enough, if the quantile of this variance stayed."""
    return variance * (2 * rtol * trace.value / trace.margin) ** 2


def _growth(
    on_part: _Level, differences: _Level, enough: float, max_products: int
) -> tuple[_Level, int] | None:
    """The level with the larger variance for its cost, and the number of its probes that fits into the budget.

    None if neither level has one.

    Args:
        on_part: see `_levels`.
        differences: see `_levels`.
        enough: the variance of the sum that is wanted.
        max_products: most that may be spent.
    """
    rest = max_products - on_part.spent - differences.spent
    fitting = []
    for level, other in ((on_part, differences), (differences, on_part)):
        affordable = level.drawn + int(rest / level.cost)
        count = min(level.next_count(enough - other.variance), affordable)
        if count > level.drawn:
            fitting.append((level, count))
    return max(fitting, key=lambda each: each[0].variance / each[0].spent, default=None)


def _sum(on_part: _Level, differences: _Level, rounding: float, rtol: float | None) -> TraceAndSquaredNorm:
    """The sum of both levels, with its interval."""
    levels = [on_part, differences]
    traces, squares = zip(*(level.means for level in levels), strict=True)
    counts = [level.drawn for level in levels]
    size = abs(on_part.means[1][0])
    trace = _estimate(traces, counts, rounding * math.sqrt(size))
    square = _estimate(squares, counts, 2 * rounding * size)
    finite = math.isfinite(trace.value)
    met = finite and (rtol is None or trace.high - trace.value <= 2 * rtol * abs(trace.value))
    # a whole number may be a sum of shares with rounding
    spent = round(on_part.spent + differences.spent, 6)
    return TraceAndSquaredNorm(trace, square, met, math.ceil(spent))


def _estimate(means: tuple[tuple[float, float], ...], counts: list[int], rounding: float) -> Estimate:
    """The sum of independent means (mean, variance), with Student's interval and Welch's degrees of freedom."""
    value = sum(mean for mean, _ in means)
    variances = [variance for _, variance in means]
    weights = sum(variance**2 / (count - 1) for variance, count in zip(variances, counts, strict=True))
    # all variances may be 0
    freedom = sum(variances) ** 2 / weights if weights else min(counts) - 1
    error = math.sqrt(sum(variances) + rounding**2)
    return Estimate(value, float(scipy.special.stdtrit(freedom, WIDER_QUANTILE)) * error)
