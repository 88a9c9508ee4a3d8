"""Spectral measure of a symmetric operator by stochastic Lanczos quadrature.

The measure has a point of mass 1 / n at each of the n eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.krylov.deflation import Deflation
from landscape.operator import Operator

ROUNDING = 1e-13
"""Relative length below which a Lanczos vector is nothing but rounding."""


@dataclass(frozen=True)
class Quadrature:
    """A spectral measure: eigenvalues known one by one, and the rest as seen by each of several random probes.

    Attributes:
        values: of the eigenvalues known, largest first, (d,).
        residuals: theirs, (d,).
        nodes: of the rest, ascending, (probes, steps).
        weights: theirs, (probes, steps); they sum to 1 for each probe.
        products: matrix-vector products spent, besides those for eigenpairs that were given.
    """

    values: Tensor
    residuals: Tensor
    nodes: Tensor
    weights: Tensor
    products: int


def lanczos_quadrature(
    operator: Operator,
    *,
    steps: int,
    probes: int,
    deflate: Deflation | None = None,
    tol: float = 1e-3,
    generator: torch.Generator,
    vector_dtype: torch.dtype = torch.float64,
) -> Quadrature:
    """Stochastic Lanczos quadrature with reorthogonalization and deflation.

    From each random start, `steps` Lanczos steps give the Gauss quadrature of the measure that the start sees
    (Golub and Meurant; Ghorbani et al. 2019 for networks). Most of its variance is that of the few large
    eigenvalues, each of which has a mass of just 1 / n (arXiv:2410.21690). Known eigenpairs are therefore taken
    out of the starts and get their exact mass. Without known pairs, the pairs to which the first probe converges take
    their place, so that deflation costs no product. If another probe sees one of their values again, that eigenvalue
    is repeated. The first probe is then drawn again without the known pairs, which costs one probe's products.

    Args:
        operator: whose spectrum.
        steps: of Lanczos for each probe; no more are taken than there are dimensions left.
        probes: random starts, at least 2, for the error is their spread.
        deflate: known eigenpairs.
        tol: relative residual up to which a pair that the first probe finds counts as known.
        generator: on the operator's device.
        vector_dtype: of the `steps` vectors kept for reorthogonalization; the arithmetic is in float64.

    Raises:
        ValueError: an argument out of range.
    """
    if steps < 1:
        raise ValueError(f"steps: must be at least 1, got {steps}")
    if probes < 2:
        raise ValueError(f"probes: must be at least 2, as the error is their spread, got {probes}")
    dimension = operator.dimension
    deflation = deflate or Deflation.empty(dimension, operator.device)
    known, values, residuals = (
        deflation.basis.to(vector_dtype),
        deflation.values.cpu(),
        deflation.residuals.cpu(),
    )
    free = dimension - known.shape[1]
    if free < 1:
        empty = torch.zeros(probes, 0, dtype=torch.float64)
        return Quadrature(values, residuals, empty, empty, 0)
    nodes = torch.zeros(probes, min(steps, free), dtype=torch.float64)
    weights = torch.zeros_like(nodes)
    products = 0
    todo = list(range(probes))
    while todo:
        probe = todo.pop(0)
        count = min(steps, dimension - known.shape[1])
        basis, matrix, last = _lanczos(operator, known, count, generator)
        products += count
        ritz, vectors = torch.linalg.eigh(matrix.nan_to_num())
        weight = vectors[0].square()
        if not torch.isfinite(matrix).all():
            nodes[:], weights[:] = float("nan"), float("nan")
            break
        if count == dimension - known.shape[1] and (matrix.diagonal(1) > 0).all():
            # the basis is of all the space, and so the pairs are the eigenpairs, each once
            nodes[:], weights[:] = ritz[-1], 0
            nodes[:, :count], weights[:, :count] = ritz, 1 / count
            break
        if probe == 0 and deflate is None and known.shape[1] == 0:
            errors = last * vectors[-1].abs()
            found = _isolated(ritz, errors, weight, tol, free)
            order = found.nonzero().flatten().flip(0)
            known = (basis.double() @ vectors[:, order].to(operator.device)).to(vector_dtype)
            values, residuals = ritz[order], errors[order]
            weight[order] = 0
        nodes[probe], weights[probe] = ritz[-1], 0
        nodes[probe, :count], weights[probe, :count] = ritz, weight / weight.sum()
        if probe == probes - 1 and deflate is None:
            # The first probe sees only one copy of a repeated eigenvalue, and that copy was taken out: draw it again.
            # A further copy has a mass of about 1 / free. What deflation leaves of the first copy has far less.
            again = (nodes[1:, :, None] - values).abs() <= tol * values.abs()
            todo = [0] if (again & (weights[1:, :, None] > 1e-3 / free)).any() else []
    return Quadrature(values, residuals, nodes, weights, products)


def _isolated(ritz: Tensor, errors: Tensor, weight: Tensor, tol: float, dimension: int) -> Tensor:
    """Which Ritz pairs are single eigenpairs, known well enough.

    A random start sees a single eigenvector with a weight of about 1 / n; 20 / n has a probability below 1e-5.
    What has more, such as the zeros of a matrix of low rank, is a cluster of many.
    """
    found = (errors <= tol * ritz.abs()) & (weight <= 20 / dimension) & (ritz.abs() > tol * ritz.abs().max())
    if weight[~found].sum() < ROUNDING:
        # nothing else was seen, and so one of these stands for several
        found = found & (weight < weight.max())
    return found


def _lanczos(
    operator: Operator, known: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """The Krylov basis (n, steps) of a random start orthogonal to `known`, the operator in it, and its last coupling.

    Where the space is exhausted early, the rest of the basis and of the matrix is zero. The steps move nothing
    to the CPU.
    """
    n = known.shape[0]
    # columns lie together, so that a pass over some of them reads no other
    basis = torch.zeros(steps, n, dtype=known.dtype, device=known.device).T
    diagonal = torch.zeros(steps, dtype=torch.float64, device=known.device)
    coupling = torch.zeros(steps, dtype=torch.float64, device=known.device)

    def orthogonal(vector: Tensor, size: int) -> Tensor:
        for _ in range(2):
            for space in (known, basis[:, :size]):
                vector = vector - (space @ (space.T @ vector.to(space))).double()
        return vector

    vector = orthogonal(torch.randn(n, 1, dtype=torch.float64, device=known.device, generator=generator), 0)
    vector = vector / vector.norm()
    for step in range(steps):
        basis[:, step : step + 1] = vector
        image = (operator @ vector).double()
        diagonal[step] = (vector * image).sum()
        image = orthogonal(image, step + 1)
        length = image.norm()
        scale = torch.maximum(diagonal.abs().max(), coupling.max())
        alive = length > ROUNDING * scale
        coupling[step] = torch.where(alive, length, 0.0)
        vector = torch.where(alive, image / length, 0.0)
    matrix = (torch.diag(diagonal) + torch.diag(coupling[:-1], 1) + torch.diag(coupling[:-1], -1)).cpu()
    return basis, matrix, coupling[-1].item()
