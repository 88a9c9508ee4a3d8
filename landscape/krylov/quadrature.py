"""Spectral measure of a symmetric operator by stochastic Lanczos quadrature.

The measure has a point of mass 1 / n at each of the n eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.krylov.deflation import Deflation
from landscape.operator import Operator
from landscape.seeds import normal_like

ROUNDING = 1e-13
"""A Lanczos vector of a smaller relative length is only rounding."""

KNOWN = 1e-3
"""Relative residual up to which a pair that the first probe finds counts as known.

An eigenvalue lies within the residual of its Ritz value, so that known ones are right to a thousandth.
"""


@dataclass(frozen=True)
class Quadrature:
    """A spectral measure: eigenvalues that are known one by one, and the rest as several random probes see it.

    Attributes:
        values: the known eigenvalues, largest first, (d,).
        residuals: the residuals of the known eigenvalues, (d,).
        nodes: the nodes of the rest, ascending, (probes, steps).
        weights: the weights of the nodes, (probes, steps); they sum to 1 for each probe.
        products: number of matrix-vector products spent, without those for eigenpairs that were given.
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
    generator: torch.Generator,
    vector_dtype: torch.dtype = torch.float64,
) -> Quadrature:
    """Stochastic Lanczos quadrature with reorthogonalization and deflation.

    From each random start, `steps` Lanczos steps give the Gauss quadrature of the measure that the start sees
    (Golub and Meurant; Ghorbani et al. 2019 for networks). Most of its variance comes from the few large
    eigenvalues, because each has a mass of only 1 / n (arXiv:2410.21690). Known eigenpairs are therefore removed
    from the starts and get their exact mass. Without known pairs, the pairs to which the first probe converges take
    their place, so that deflation costs no product. If another probe sees one of their values too, that eigenvalue
    is repeated. The first probe is then drawn again without the known pairs, which costs one probe's products.

    Args:
        operator: the symmetric operator.
        steps: number of Lanczos steps for each probe; at most the number of dimensions that are left.
        probes: number of random starts, at least 2, because their spread is the error.
        deflate: known eigenpairs.
        generator: draws the starts.
        vector_dtype: dtype of the `steps` vectors that are kept for reorthogonalization; the arithmetic is in float64.

    Raises:
        ValueError: an argument is out of range.
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
        empty = torch.zeros(probes, 0, dtype=torch.float64, device="cpu")
        return Quadrature(values, residuals, empty, empty, 0)
    nodes = torch.zeros(probes, min(steps, free), dtype=torch.float64, device="cpu")
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
            found = _isolated(ritz, errors, weight, free)
            order = found.nonzero().flatten().flip(0)
            known = (basis.double() @ vectors[:, order].to(operator.device)).to(vector_dtype)
            values, residuals = ritz[order], errors[order]
            weight[order] = 0
        nodes[probe], weights[probe] = ritz[-1], 0
        nodes[probe, :count], weights[probe, :count] = ritz, weight / weight.sum()
        if probe == probes - 1 and deflate is None:
            # The first probe sees only one copy of a repeated eigenvalue, and that copy was taken out: draw the probe
            # again. A further copy has a mass of about 1 / free. The part of the first copy that deflation leaves has
            # far less.
            again = (nodes[1:, :, None] - values).abs() <= KNOWN * values.abs()
            todo = [0] if (again & (weights[1:, :, None] > 1e-3 / free)).any() else []
    return Quadrature(values, residuals, nodes, weights, products)


def _isolated(ritz: Tensor, errors: Tensor, weight: Tensor, dimension: int) -> Tensor:
    """Which Ritz pairs are single eigenpairs with a small residual.

    A random start gives a single eigenvector a weight of about 1 / n; a weight of 20 / n has a probability below 1e-5.
    A larger weight is that of a cluster of eigenvalues, such as the zeros of a matrix of low rank.
    """
    is_known = errors <= KNOWN * ritz.abs()
    found = is_known & (weight <= 20 / dimension) & (ritz.abs() > KNOWN * ritz.abs().max())
    if weight[~found].sum() < ROUNDING:
        # nothing else was seen, and so one of these stands for several
        found = found & (weight < weight.max())
    return found


def _lanczos(
    operator: Operator, known: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """The Krylov basis (n, steps) of a random start orthogonal to `known`, the operator in it, and its last coupling.

    If the space is exhausted early, the rest of the basis and of the matrix is zero. The steps copy nothing to the CPU.
    """
    n = known.shape[0]
    # each column is contiguous, so that a pass over some columns reads no others
    basis = torch.zeros(steps, n, dtype=known.dtype, device=known.device).T
    diagonal = torch.zeros(steps, dtype=torch.float64, device=known.device)
    coupling = torch.zeros(steps, dtype=torch.float64, device=known.device)

    def orthogonal(vector: Tensor, size: int) -> Tensor:
        for _ in range(2):
            for space in (known, basis[:, :size]):
                vector = vector - (space @ (space.T @ vector.to(space))).double()
        return vector

    vector = orthogonal(normal_like((n, 1), diagonal, generator), 0)
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
