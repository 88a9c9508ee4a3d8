"""Trace and squared Frobenius norm of a symmetric operator, with valid standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.checks import check_rtol
from landscape.krylov.deflation import Deflation
from landscape.krylov.probes import Image, Probes, Signs, Sketched, random_directions, unseen_variance
from landscape.krylov.stopping import QUANTILE, WIDER_QUANTILE, sampled_until, student
from landscape.operator import Operator, ranks_of
from landscape.ranks import Ranks

METHODS = ("xtrace", "hutch++", "hutchinson")
GOALS = ("trace", "norm")

FIRST_LOOK = {"xtrace": 6, "hutch++": 8, "hutchinson": 16}
"""Probes before the error is looked at for the first time. Later looks follow when their number has grown by half."""

PRODUCTS_PER_PROBE = {"xtrace": 2, "hutch++": 3, "hutchinson": 1}


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, which lies around it.

    Attributes:
        value: the number.
        margin: half the width of the interval.
    """

    value: float
    margin: float

    @property
    def standard_error(self) -> float:
        """Half the margin.

        The spread of few probes, at which sampling was free to stop, is too small: twice that spread held the number in
        87 to 90% of draws where the interval held it in 95%.
        """
        return self.margin / 2

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.margin

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.margin


@dataclass(frozen=True)
class TraceAndSquaredNorm:
    """The sum of the eigenvalues and of their squares, from the same products.

    Attributes:
        trace: the sum of the eigenvalues.
        square: the sum of their squares, which is the squared Frobenius norm.
        converged: whether the interval of the trace, or of the norm if that is the goal, is within +-2 rtol |value|;
            without an rtol, whether it is finite.
        products: number of matrix-vector products spent.
    """

    trace: Estimate
    square: Estimate
    converged: bool
    products: int


def trace_and_squared_norm(
    operator: Operator,
    *,
    method: str = "xtrace",
    rtol: float | None = 0.05,
    max_products: int = 200,
    goal: str = "trace",
    deflate: Deflation | None = None,
    generator: torch.Generator,
) -> TraceAndSquaredNorm:
    """Estimates the trace and the squared Frobenius norm of a symmetric operator A.

    With orthonormal Q, tr A = tr Q^T A Q + E[w^T (I - QQ^T) A (I - QQ^T) w] for random w with covariance I. The first
    part is exact. The smaller the second part is, the smaller is the error.

    - `"hutchinson"` (1990): no Q, and random signs. A probe costs one product; the error falls as 1 / sqrt(probes).
    - `"hutch++"` (Meyer et al. 2021): Q spans A times random vectors that are no probes.
    - `"xtrace"` (Epperly, Tropp, Webber 2024): for each probe, Q spans A times all the other probes.

    The values of the probes are independent in the first two methods. In XTrace they depend on each other, so that
    their spread is too small; their covariance is added. All intervals are Student's.

    Known directions (`deflate`) are removed first. If the budget could span the whole space, the operator is applied to
    a basis of the space, and the result is exact up to rounding. The standard error of the trace is then 10 eps of the
    operator's dtype times the Frobenius norm, and the relative error of the squared norm is twice as large. (On small
    networks in float32 at most 6 eps were seen.)

    Args:
        operator: the operator A. The rounding of its dtype is a part of the error.
        method: one of `METHODS`.
        rtol: sampling ends when the 95% interval of the goal is within +-2 rtol |value|. The interval is looked at
            each time the number of probes has grown by half. None spends the whole budget.
        max_products: most products that may be spent.
        goal: what shall be known to `rtol`: the `"trace"`, or the `"norm"`, which is Frobenius'. The trace of an
            indefinite matrix may be near 0, where no relative accuracy can be reached.
        deflate: a subspace in which A is known, such as that of known eigenvectors.
        generator: draws the probes. 4 vectors in float64 are kept for each probe; none with
            Hutchinson's method.

    Raises:
        ValueError: an argument is out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}")
    check_rtol(rtol)
    if goal not in GOALS:
        raise ValueError(f"goal: must be one of {', '.join(GOALS)}, got {goal!r}")
    cost = PRODUCTS_PER_PROBE[method]
    dimension, ranks = operator.dimension, ranks_of(operator)
    known = deflate or Deflation.empty(ranks.entries_of(dimension), operator.device)
    if ranks.share_vectors and (method != "hutchinson" or deflate is not None):
        raise ValueError(
            "method: only Hutchinson's method, without deflation, takes vectors of which each rank holds a part; got "
            f"{method!r}"
        )
    squares = known.values.square() + known.residuals.square()
    exact = (known.values.double().sum().item(), squares.double().sum().item())
    basis = known.basis.double()
    free = dimension - basis.shape[1]
    check_products(max_products, method, free)
    image = in_float64(operator)
    rounding = 10 * torch.finfo(operator.dtype).eps
    limit = min(max_products, free) // cost
    # sampling would spend about as many products until its second look, and would give only an estimate
    may_span = free <= max_products and not ranks.share_vectors
    if may_span and (rtol is None or free <= 2 * FIRST_LOOK[method] * cost):
        return _exact(image, basis, exact, 0, rounding)
    probes = _probes(image, basis, method, generator, ranks)
    quantile = QUANTILE if rtol is None else WIDER_QUANTILE
    drawn = 0
    found: TraceAndSquaredNorm | None = None

    def look(wanted: int) -> TraceAndSquaredNorm:
        nonlocal drawn, found
        probes.grow(wanted - drawn)
        drawn = wanted
        # without a tolerance, only the first look can end the sampling, by what is no number
        if rtol is None and found is not None and wanted < limit:
            return found
        (values, covariance), (squares, covariance_of_squares) = probes.values()
        size = squares.mean().abs()
        square = _estimate(exact[1], squares, covariance_of_squares, 2 * rounding * size, WIDER_QUANTILE)
        trace = _estimate(exact[0], values, covariance, rounding * size.sqrt(), quantile)
        # the relative error of a square is twice that of its root
        asked, margin = (trace, 2) if goal == "trace" else (square, 4)
        finite = math.isfinite(trace.value)
        met = finite and (rtol is None or asked.high - asked.value <= margin * rtol * abs(asked.value))
        found = TraceAndSquaredNorm(trace, square, met, wanted * cost)
        return found

    def is_done(found: TraceAndSquaredNorm) -> bool:
        return not math.isfinite(found.trace.value) or (found.converged and rtol is not None)

    last, _ = sampled_until(is_done, look, first=FIRST_LOOK[method], most=limit)
    misses = math.isfinite(last.trace.value) and not last.converged
    if may_span and misses and last.products + free <= max_products:
        return _exact(image, basis, exact, last.products, rounding)
    return last


def check_products(max_products: int, method: str, dimension: int) -> None:
    """Raises ValueError if a method has too few products for an error, and too few to span the space."""
    least = min(dimension, 2 * PRODUCTS_PER_PROBE[method])
    if max_products < least:
        raise ValueError(f"max_products: {method} needs at least {least}, got {max_products}")


def in_float64(operator: Operator) -> Image:
    """The products of an operator, in float64."""
    return lambda block: (operator @ block).double()


def _probes(image: Image, known: Tensor, method: str, generator: torch.Generator, ranks: Ranks) -> Probes:
    """The sampler of a method, in the space orthogonal to the known one."""

    def signs() -> Tensor:
        draw = random_signs(len(known), known.device, generator)
        return draw - known @ (known.T @ draw)

    if method == "hutchinson":
        return Signs(image, signs, ranks=ranks)
    return Sketched(image, lambda count: random_directions(known, count, generator), known, method)


def random_signs(dimension: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """A vector (n, 1) of random signs."""
    drawn = torch.randint(0, 2, (dimension, 1), generator=generator, device=generator.device)
    return drawn.to(device).double() * 2 - 1


def _estimate(
    exact: float, values: Tensor, covariance: Tensor, rounding: Tensor, quantile: float
) -> Estimate:
    """The mean of the probes' values, with Student's interval."""
    value = exact + values.mean().item()
    error = math.sqrt((values.var() / len(values) + covariance + rounding.square()).item())
    return Estimate(value, student(quantile, len(values)) * error)


def _exact(
    image: Image, known: Tensor, exact: tuple[float, float], products: int, rounding: float
) -> TraceAndSquaredNorm:
    """Both sums from a basis of the part of the space that is not known; their error is rounding."""
    n = known.shape[0]
    complement = torch.linalg.qr(known, mode="complete").Q[:, known.shape[1] :]
    trace, square = exact
    # if everything is known, no product is needed; split() would give one block without vectors
    for block in complement.split(32, dim=1) if complement.shape[1] else ():
        applied = image(block)
        trace += (block * applied).sum().item()
        square += applied.square().sum().item()
    products += n - known.shape[1]
    errors = (rounding * math.sqrt(square), 2 * rounding * square)
    sums = [Estimate(value, 2 * error) for value, error in zip((trace, square), errors, strict=True)]
    return TraceAndSquaredNorm(sums[0], sums[1], math.isfinite(trace), products)


def block_traces(
    operator: Operator,
    sizes: Sequence[int],
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    deflate: Deflation | None = None,
    generator: torch.Generator,
) -> tuple[list[Estimate], bool, int]:
    """The traces of the diagonal blocks of a symmetric operator, all from the same products.

    For random signs w, take the entries of w and of A w in a block. The mean of their inner product is the trace of the
    block. The known part Q diag(values) Q^T of A is summed exactly, and only the rest of A is sampled.

    Args:
        operator: the operator A.
        sizes: sizes of the blocks, in order; they sum to n.
        rtol: sampling ends when each block's 95% interval is within +-2 rtol |trace of A|; None spends the whole
            budget.
        max_products: most products that may be spent, at least 2.
        deflate: a subspace in which A is known.
        generator: draws the probes.

    Returns:
        The estimates, whether all are within rtol (without an rtol, whether they are finite), and the number of
        products spent.

    Raises:
        ValueError: an argument is out of range.
    """
    check_rtol(rtol)
    if max_products < 2:
        raise ValueError(
            f"max_products: must be at least 2, as the error is the probes' spread, got {max_products}"
        )
    known = deflate or Deflation.empty(operator.dimension, operator.device)
    basis, values = known.basis.double(), known.values.double()
    exact = torch.stack([(part.square() * values).sum() for part in basis.split(list(sizes))])
    samples: list[Tensor] = []
    squares: list[Tensor] = []

    def look(wanted: int) -> tuple[Tensor, Tensor, bool]:
        for _ in range(wanted - len(samples)):
            signs = random_signs(operator.dimension, operator.device, generator)
            rest = (operator @ signs).double() - basis @ (values.unsqueeze(1) * (basis.T @ signs))
            samples.append(torch.stack([part.sum() for part in (signs * rest)[:, 0].split(list(sizes))]))
            squares.append(torch.stack([part.square().sum() for part in rest[:, 0].split(list(sizes))]))
        drawn = torch.stack(samples)
        means = (exact + drawn.mean(0)).cpu()
        unseen = unseen_variance(drawn, 2 * torch.stack(squares).mean(0))
        errors = (drawn.var(0) / wanted + unseen).sqrt().cpu()
        margins = student(WIDER_QUANTILE, wanted) * errors
        finite = bool(torch.isfinite(means).all())
        met = finite and (rtol is None or bool((margins <= 2 * rtol * means.sum().abs()).all()))
        return means, margins, met

    first = max_products if rtol is None else FIRST_LOOK["hutchinson"]
    (means, margins, met), spent = sampled_until(
        lambda found: found[2] or not bool(torch.isfinite(found[0]).all()),
        look,
        first=first,
        most=max_products,
    )
    pairs = zip(means.tolist(), margins.tolist(), strict=True)
    return [Estimate(mean, margin) for mean, margin in pairs], met, spent
