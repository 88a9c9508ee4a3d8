"""Extreme eigenpairs of a symmetric operator by block Lanczos with full reorthogonalisation.

Knows matrix-vector products only: `matvec` maps a block (n, k) to a block (n, k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]

SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": lambda values: values.abs(),
}
"""Which eigenvalues: those for which this key is largest."""


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenpairs, the most extreme first.

    Attributes:
        values: float64 (k,).
        vectors: float64 (n, k), orthonormal columns.
        residuals: float64 (k,), ||A v - value v|| from a product of its own: an eigenvalue of A lies within
            that distance of the value.
        converged: bool (k,).
        products: matrix-vector products spent, those for the residuals included.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    products: int


def top_eigenpairs(
    matvec: Matvec,
    dimension: int,
    k: int,
    *,
    which: str = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float64,
) -> Eigenpairs:
    """The k most extreme eigenpairs of a symmetric operator.

    Block Lanczos with thick restarts (Wu and Simon 2000; Krylov-Schur, Stewart 2001). Every block is
    orthogonalised twice against the whole basis, so that no eigenvalue appears more often than it is there;
    the block is k vectors wide, so that an eigenvalue repeated up to k times is found as often as it is there.

    Args:
        matvec: (n, m) -> (n, m).
        dimension: n.
        k: how many pairs, 1 to n.
        which: `"largest"`, `"smallest"` (algebraically) or `"magnitude"`.
        tol: a pair has converged when its residual is at most tol |value|, or at most what rounding in
            `precision` leaves of an operator of this size.
        max_products: budget; 40 k + 60 if not given. What has not converged by then is returned, and said so.
        generator: on `device`, for the start vectors.
        device: of the vectors, which are kept in float64.
        precision: dtype in which `matvec` computes.

    Raises:
        ValueError: k, which, tol or max_products out of range.
    """
    budget = 40 * k + 60 if max_products is None else max_products
    if not 1 <= k <= dimension:
        raise ValueError(f"k: must lie between 1 and the number of parameters {dimension}, got {k}")
    if which not in SELECTIONS:
        raise ValueError(f"which: must be one of {', '.join(SELECTIONS)}, got {which!r}")
    if not tol > 0:
        raise ValueError(f"tol: must be positive, got {tol}")
    if budget < 2 * k:
        raise ValueError(f"max_products: {k} pairs need at least {2 * k} products, got {budget}")
    key = SELECTIONS[which]
    rounding = 10 * torch.finfo(precision).eps
    capacity = min(dimension, max(4 * k, k + 20))
    basis = torch.zeros(dimension, capacity, dtype=torch.float64, device=device)
    projected = torch.zeros(capacity, capacity, dtype=torch.float64, device=device)
    size, products = 0, 0
    block = _random_orthonormal(basis[:, :0], k, generator)

    while True:
        last = slice(size, size + block.shape[1])
        basis[:, last] = block
        image = matvec(block).double()
        products += block.shape[1]
        if not torch.isfinite(image).all():
            return _not_a_number(dimension, k, products, device)
        size = last.stop
        remainder, coefficients = _orthogonalised(image, basis[:, :size])
        projected[:size, last] = coefficients
        projected[last, :size] = coefficients.T

        ritz, combination = torch.linalg.eigh(projected[:size, :size])
        order = key(ritz).argsort(descending=True)
        ritz, combination = ritz[order], combination[:, order]
        scale = ritz.abs().max()
        width = min(k, dimension - size)
        block, coupling = _next_block(remainder, basis[:, :size], width, rounding * scale, generator)
        estimates = torch.linalg.vector_norm(coupling @ combination[last], dim=0)[:k]
        allowed = torch.clamp(tol * ritz[:k].abs(), min=rounding * scale)
        # k products are kept for the residuals
        if bool((estimates <= allowed).all()) or width == 0 or products + width > budget - k:
            break
        if size + width > capacity:
            kept = k + (capacity - k) // 3
            basis[:, :kept] = basis[:, :size] @ combination[:, :kept]
            projected.zero_()
            projected[:kept, :kept] = torch.diag(ritz[:kept])
            size = kept

    vectors = basis[:, :size] @ combination[:, :k]
    image = matvec(vectors).double()
    values = (vectors * image).sum(0)
    residuals = torch.linalg.vector_norm(image - vectors * values, dim=0)
    order = key(values).argsort(descending=True)
    values, vectors, residuals = values[order], vectors[:, order], residuals[order]
    converged = residuals <= torch.clamp(tol * values.abs(), min=rounding * scale)
    return Eigenpairs(values, vectors, residuals, converged, products + k)


def _orthogonalised(block: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The block less its part in the basis' span, and its coefficients there; twice is enough (Kahan)."""
    coefficients = basis.T @ block
    block = block - basis @ coefficients
    correction = basis.T @ block
    return block - basis @ correction, coefficients + correction


def _random_orthonormal(basis: Tensor, width: int, generator: torch.Generator) -> Tensor:
    draw = torch.randn(basis.shape[0], width, dtype=basis.dtype, device=basis.device, generator=generator)
    q, _ = torch.linalg.qr(_orthogonalised(draw, basis)[0])
    return q


def _next_block(
    remainder: Tensor, basis: Tensor, width: int, negligible: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Orthonormal columns spanning the remainder, and the coupling with remainder = columns @ coupling.

    Directions in which the remainder vanishes (an invariant subspace was found) are replaced by random ones
    orthogonal to the basis, so that the search goes on in the rest of the space.
    """
    q, r = torch.linalg.qr(remainder)
    left, sizes, right = torch.linalg.svd(r)
    coupling = sizes.unsqueeze(1) * right
    columns = (q @ left)[:, :width]
    vanishing = sizes[:width] <= negligible
    if vanishing.any():
        rest = columns[:, ~vanishing]
        fresh = _random_orthonormal(torch.cat([basis, rest], 1), int(vanishing.sum()), generator)
        columns = torch.cat([rest, fresh], 1)
    return columns, coupling


def _not_a_number(dimension: int, k: int, products: int, device: torch.device | str) -> Eigenpairs:
    nan = torch.full((k,), float("nan"), dtype=torch.float64, device=device)
    vectors = torch.full((dimension, k), float("nan"), dtype=torch.float64, device=device)
    return Eigenpairs(nan, vectors, nan.clone(), torch.zeros(k, dtype=torch.bool, device=device), products)
