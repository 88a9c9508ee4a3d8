"""Trace and squared Frobenius norm of a symmetric operator with standard errors that hold.

Knows matrix-vector products only: `matvec` maps a block (n, k) to a block (n, k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]

METHODS = ("xtrace", "hutch++", "hutchinson")

FIRST_LOOK = {"xtrace": 6, "hutch++": 8, "hutchinson": 16}
"""Probes before the error is looked at for the first time; then each time their number has grown by half."""

PRODUCTS_PER_PROBE = {"xtrace": 2, "hutch++": 3, "hutchinson": 1}

QUANTILE, WIDER_QUANTILE = 0.975, 0.985
"""Of Student's distribution, for a 95% interval. The first is too short for two:

- A run that may stop at a look does so rather when its error looks small: with 0.975 such intervals held the trace in
  88 to 96% of draws, with 0.985 in 93 to 99%, for a tenth more probes.
- Squares are skewed: with 0.975 intervals held the squared norm in 89 to 97% of draws, with 0.985 in 92 to 98%.
"""

SKETCH_NOISE = 1e-9
"""Of the sketch, relative: keeps its basis well conditioned on operators of low rank, and biases nothing."""


@dataclass(frozen=True)
class Estimate:
    """A number with its error: the standard error and the 95% interval."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Moments:
    """The sum of the eigenvalues and of their squares, from the same products.

    Attributes:
        trace: the sum.
        square: the sum of squares, which is the squared Frobenius norm.
        converged: the interval of the trace is within +-2 rtol |value|; without an rtol, that it is finite.
        products: matrix-vector products spent.
    """

    trace: Estimate
    square: Estimate
    converged: bool
    products: int


@dataclass(frozen=True)
class Deflation:
    """A subspace in which the operator is known.

    Attributes:
        basis: Q, orthonormal columns (n, q).
        values: diagonal of Q^T A Q, (q,).
        residuals: ||A q - value q||, (q,).
    """

    basis: Tensor
    values: Tensor
    residuals: Tensor


def moments(
    matvec: Matvec,
    dimension: int,
    *,
    method: str = "xtrace",
    rtol: float | None = 0.05,
    max_products: int = 200,
    deflate: Deflation | None = None,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float64,
) -> Moments:
    """Estimates the trace and the squared Frobenius norm of a symmetric operator A.

    With orthonormal Q, tr A = tr Q^T A Q + E[w^T (I - QQ^T) A (I - QQ^T) w] for random w with covariance I; the
    first part is exact, and the smaller the second, the smaller the error.

    - `"hutchinson"` (1990): no Q, random signs. One product a probe; the error falls as 1 / sqrt(probes).
    - `"hutch++"` (Meyer et al. 2021): Q spans A times random vectors, apart from the probes.
    - `"xtrace"` (Epperly, Tropp, Webber 2024): Q spans A times all the other probes, for each probe in turn.

    The probes' values are independent in the first two. In XTrace they share the other probes, and their
    spread is too small: `_held_out` adds their covariance. All intervals are Student's.

    Directions already known (`deflate`) leave the problem first. Where the products asked for could span the
    whole space, the operator is applied to a basis of it, and the result is exact but for rounding: 10 eps of
    `precision` times the Frobenius norm is taken as the standard error of that (on small networks in float32, 6 eps
    at most were seen), twice that, relatively, for the squared norm.

    Args:
        matvec: (n, k) -> (n, k).
        dimension: n.
        method: one of `METHODS`.
        rtol: ends when the 95% interval of the trace is within +-2 rtol |value|, looked at each time the number
            of probes has grown by half; None spends the whole budget.
        max_products: budget.
        deflate: a subspace in which A is known, such as eigenvectors found before.
        generator: on `device`, for the probes.
        device: of the vectors, which are kept in float64: 4 a probe, none with Hutchinson's.
        precision: dtype in which `matvec` computes; its rounding is part of the error.

    Raises:
        ValueError: an argument out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}")
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")
    cost = PRODUCTS_PER_PROBE[method]
    known = torch.zeros(dimension, 0, dtype=torch.float64, device=device)
    exact = (0.0, 0.0)
    if deflate is not None:
        known = deflate.basis.double()
        squares = deflate.values.square() + deflate.residuals.square()
        exact = (deflate.values.double().sum().item(), squares.double().sum().item())
    free = dimension - known.shape[1]
    if max_products < min(free, 2 * cost):
        raise ValueError(f"max_products: {method} needs at least {min(free, 2 * cost)}, got {max_products}")

    def image(block: Tensor) -> Tensor:
        return matvec(block).double()

    def draw(count: int) -> Tensor:
        return _directions(known, count, generator)

    rounding = 10 * torch.finfo(precision).eps

    def signs() -> Tensor:
        draw = torch.randint(0, 2, (dimension, 1), generator=generator, device=device).double() * 2 - 1
        return draw - known @ (known.T @ draw)

    sampler = _Plain(image, signs) if method == "hutchinson" else _Sketched(image, draw, known, method)
    limit = min(max_products, free) // cost
    wanted = FIRST_LOOK[method]
    # twice the products of the first look are about what the second has spent, and this is no estimate
    if free <= max_products and (rtol is None or free <= 2 * wanted * cost):
        return _exact(image, known, exact, 0, rounding)
    quantile = QUANTILE if rtol is None else WIDER_QUANTILE
    products = 0
    while True:
        wanted = min(wanted, limit)
        sampler.grow(wanted - products // cost)
        products = wanted * cost
        (values, covariance), (squares, covariance_of_squares) = sampler.values()
        size = squares.mean().abs()
        square = _estimate(exact[1], squares, covariance_of_squares, 2 * rounding * size, WIDER_QUANTILE)
        trace = _estimate(exact[0], values, covariance, rounding * size.sqrt(), quantile)
        finite = math.isfinite(trace.value)
        met = finite and (rtol is None or trace.high - trace.value <= 2 * rtol * abs(trace.value))
        if not finite or (met and rtol is not None):
            return Moments(trace, square, met, products)
        if wanted == limit:
            if not met and products + free <= max_products:
                return _exact(image, known, exact, products, rounding)
            return Moments(trace, square, met, products)
        wanted += wanted // 2


def _directions(known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random directions orthogonal to the known ones, of squared length the dimension that is left."""
    n = known.shape[0]
    draw = torch.randn(n, count, dtype=torch.float64, device=known.device, generator=generator)
    draw = draw - known @ (known.T @ draw)
    return draw * (math.sqrt(n - known.shape[1]) / torch.linalg.vector_norm(draw, dim=0))


def _estimate(
    exact: float, values: Tensor, covariance: Tensor, rounding: Tensor, quantile: float
) -> Estimate:
    """The mean of the probes' values, with Student's interval."""
    value = exact + values.mean().item()
    error = math.sqrt((values.var() / len(values) + covariance + rounding.square()).item())
    margin = float(scipy.special.stdtrit(len(values) - 1, quantile)) * error
    return Estimate(value, error, value - margin, value + margin)


class _Plain:
    """Hutchinson's probes: w^T A w and w^T A^2 w, nothing else is kept.

    Signs rather than directions: they see a diagonal without error.
    """

    def __init__(self, image: Matvec, draw: Callable[[], Tensor]) -> None:
        self._image, self._draw = image, draw
        self._samples: list[Tensor] = []

    def grow(self, count: int) -> None:
        for _ in range(count):
            probe = self._draw()
            applied = self._image(probe)
            self._samples.append(torch.stack([(probe * applied).sum(), applied.square().sum()]))

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """Of A and of A^2: one value a probe, and what their common part adds to the variance of the mean."""
        return [(values, values.new_zeros(())) for values in torch.stack(self._samples, 1)]


class _Sketched:
    """Probes with a basis Q of what A makes of random vectors: of the probes themselves, or of others."""

    def __init__(self, image: Matvec, draw: Callable[[int], Tensor], known: Tensor, method: str) -> None:
        self._image, self._draw, self._known = image, draw, known
        self._leaves_out = method == "xtrace"
        self._probes = self._images = self._basis = self._basis_images = known[:, :0]
        self._triangle = known.new_zeros(0, 0)

    def grow(self, count: int) -> None:
        probes = self._draw(count)
        images = self._image(probes)
        sketch = images if self._leaves_out else self._image(self._draw(count))
        noise = self._draw(count) * (SKETCH_NOISE * sketch.norm() / math.sqrt(sketch.numel()))
        sketch = torch.where(sketch.norm() > 0, sketch + noise, self._draw(count))
        coordinates = sketch.new_zeros(self._basis.shape[1], count)
        inner = torch.eye(count, dtype=sketch.dtype, device=sketch.device)
        # the second time removes what rounding left of the basis in columns that were nearly in its span
        for _ in range(2):
            sketch = sketch - self._known @ (self._known.T @ sketch)
            part = self._basis.T @ sketch
            coordinates = coordinates + part @ inner
            sketch, factor = torch.linalg.qr(sketch - self._basis @ part)
            inner = factor @ inner
        self._triangle = torch.cat(
            [torch.nn.functional.pad(self._triangle, (0, 0, 0, count)), torch.cat([coordinates, inner])], 1
        )
        self._probes = torch.cat([self._probes, probes], 1)
        self._images = torch.cat([self._images, images], 1)
        self._basis = torch.cat([self._basis, sketch], 1)
        self._basis_images = torch.cat([self._basis_images, self._image(sketch)], 1)

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """Of A and of A^2: one value a probe, and what their common part adds to the variance of the mean."""
        probes, images, basis, basis_images = self._probes, self._images, self._basis, self._basis_images
        dimension = self._known.shape[0] - self._known.shape[1]
        coordinates = basis.T @ probes
        forms = [
            _Form(basis.T @ basis_images, basis_images.T @ probes, (probes * images).sum(0)),
            _Form(basis_images.T @ basis_images, basis_images.T @ images, images.square().sum(0)),
        ]
        if self._leaves_out:
            alone = torch.linalg.inv(self._triangle).T
            alone = alone / torch.linalg.vector_norm(alone, dim=0)
            return [_held_out(form, coordinates, alone, dimension) for form in forms]
        nothing = basis.new_zeros(basis.shape[1], 0, probes.shape[1])
        return [(_values(form, coordinates, nothing, dimension), basis.new_zeros(())) for form in forms]


@dataclass(frozen=True)
class _Form:
    """A quadratic form B = A or A^2 where it is needed: Q^T B Q, Q^T B w and w^T B w of each probe w."""

    core: Tensor
    cross: Tensor
    diagonal: Tensor


def _held_out(form: _Form, coordinates: Tensor, alone: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """XTrace's values, one a probe, and an estimate of their mean covariance.

    Given all other probes, each value t_i has the trace as its mean. Let g_ij be the value of probe i when
    probe j is kept out of its basis too, and d_ij = t_i - g_ij. Given the probes other than i and j, g_ij and
    g_ji are independent, and d_ij has mean 0 whatever probe j is; so Cov(t_i, t_j) = E[d_ij d_ji]. Hence
    Var(mean) = E[s^2 / m + mean of d_ij d_ji over i != j]: the sample variance alone, which is what XTrace
    comes with, leaves the second term out, and gives as little as a half of the standard error.

    Args:
        form: the quadratic form.
        coordinates: of the probes in the basis, (m, m).
        alone: column i is the direction in the basis that only probe i put there, of length 1.
        dimension: of the space.
    """
    count = alone.shape[1]
    values = _values(form, coordinates, alone.unsqueeze(1), dimension)
    # of probe i (second to last index) without probe j (last)
    other = alone.unsqueeze(1).expand(-1, count, -1)
    own = alone.unsqueeze(2) - other * (alone.T @ alone)
    own = own / torch.linalg.vector_norm(own, dim=0).clamp(min=1e-30)
    without = _values(form, coordinates, torch.stack([own, other], 1), dimension)
    change = (values.unsqueeze(1) - without).fill_diagonal_(0)
    covariance = (change * change.T).sum() / (count * (count - 1))
    return values, covariance.clamp(min=0)


def _values(form: _Form, coordinates: Tensor, removed: Tensor, dimension: int) -> Tensor:
    """The estimate of each probe by itself, with some directions removed from the basis.

    Args:
        form: the quadratic form.
        coordinates: of the probes in the basis, (m, probes).
        removed: r orthonormal directions in the basis for each probe, (m, r, probes), or for several cases of
            each probe, (m, r, probes, cases).
        dimension: of the space, the squared length of the probes.
    """
    cases = (..., None) if removed.ndim == 4 else (...,)
    coordinates, cross, diagonal = coordinates[cases], form.cross[cases], form.diagonal[cases]
    kept = coordinates - torch.einsum("ar...,br...,b...->a...", removed, removed, coordinates)
    inside = form.core.trace() - torch.einsum("ar...,ab,br...->...", removed, form.core, removed)
    twice = torch.einsum("a...,ab,b...->...", kept, form.core, kept)
    outside = diagonal - 2 * (kept * cross).sum(0) + twice
    rank = len(form.core) - removed.shape[1]
    # the length of what is left of a probe is known to be sqrt(dimension - rank) on average: one noise less
    return inside + outside * (dimension - rank) / (dimension - kept.square().sum(0))


def _exact(
    image: Matvec, known: Tensor, exact: tuple[float, float], products: int, rounding: float
) -> Moments:
    """The moments from a basis of the whole space that is not yet known; their error is rounding."""
    n = known.shape[0]
    complement = torch.linalg.qr(known, mode="complete").Q[:, known.shape[1] :]
    trace, square = exact
    for block in complement.split(32, dim=1):
        applied = image(block)
        trace += (block * applied).sum().item()
        square += applied.square().sum().item()
    products += n - known.shape[1]
    errors = (rounding * math.sqrt(square), 2 * rounding * square)
    sums = [
        Estimate(value, error, value - 2 * error, value + 2 * error)
        for value, error in zip((trace, square), errors, strict=True)
    ]
    return Moments(sums[0], sums[1], math.isfinite(trace), products)


def block_traces(
    matvec: Matvec,
    sizes: Sequence[int],
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    deflate: Deflation | None = None,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> tuple[list[Estimate], bool, int]:
    """The traces of the diagonal blocks of a symmetric operator, all from the same products.

    For random signs w, the part of w in a block times the part of A w there has the block's trace as its mean.
    What is known of A, as Q diag(values) Q^T, is summed exactly, and only A less that is sampled.

    Args:
        matvec: (n, k) -> (n, k).
        sizes: of the blocks, in order; they sum to n.
        rtol: ends when each block's 95% interval is within +-2 rtol |trace of A|; None spends the whole budget.
        max_products: budget, at least 2.
        deflate: a subspace in which A is known.
        generator: on `device`, for the probes.
        device: of the vectors.

    Returns:
        The estimates, whether all are within rtol (without an rtol, whether they are finite), and the products spent.

    Raises:
        ValueError: an argument out of range.
    """
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")
    if max_products < 2:
        raise ValueError(
            f"max_products: must be at least 2, as the error is the probes' spread, got {max_products}"
        )
    dimension = sum(sizes)
    exact = torch.zeros(len(sizes), dtype=torch.float64, device=device)
    known = torch.zeros(dimension, 0, dtype=torch.float64, device=device)
    values = known[0] if dimension else known
    if deflate is not None:
        known, values = deflate.basis.double(), deflate.values.double()
        exact = torch.stack([(part.square() * values).sum() for part in known.split(list(sizes))])
    samples = torch.zeros(0, len(sizes), dtype=torch.float64, device=device)
    wanted = max_products if rtol is None else FIRST_LOOK["hutchinson"]
    while True:
        wanted = min(wanted, max_products)
        for _ in range(wanted - len(samples)):
            signs = torch.randint(0, 2, (dimension, 1), generator=generator, device=device).double() * 2 - 1
            rest = matvec(signs).double() - known @ (values.unsqueeze(1) * (known.T @ signs))
            parts = [part.sum() for part in (signs * rest)[:, 0].split(list(sizes))]
            samples = torch.cat([samples, torch.stack(parts).unsqueeze(0)])
        means = (exact + samples.mean(0)).cpu()
        errors = (samples.std(0) / math.sqrt(wanted)).cpu()
        margins = float(scipy.special.stdtrit(wanted - 1, WIDER_QUANTILE)) * errors
        finite = bool(torch.isfinite(means).all())
        met = finite and (rtol is None or bool((margins <= 2 * rtol * means.sum().abs()).all()))
        if met or wanted >= max_products or not finite:
            columns = (means, errors, means - margins, means + margins)
            rows = torch.stack(columns, 1).tolist()
            return [Estimate(*row) for row in rows], met, wanted
        wanted = wanted + wanted // 2
