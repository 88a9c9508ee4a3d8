"""Leading eigenvalues and trace of an Objective's Hessian or Gauss-Newton matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.curvature.with_pyhessian import ask_pyhessian
from landscape.krylov.eigenpairs import top_eigenpairs
from landscape.krylov.traces import METHODS, Deflation, block_traces, moments
from landscape.loss.objective import Objective
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result

MATRICES: dict[str, Callable[[Objective, Tensor], Tensor]] = {
    "functional": lambda objective, block: objective.hvp(block) - objective.ggnvp(block),
    "gauss-newton": lambda objective, block: objective.ggnvp(block),
    "hessian": lambda objective, block: objective.hvp(block),
}
"""Matrices of an Objective by name: the Hessian is the sum of the other two.

The Gauss-Newton matrix holds the curvature of the loss in the outputs and is positive semidefinite for convex
losses; for cross-entropy it does not depend on the labels. The rest, the functional Hessian (Singh et al. 2021),
holds the curvature of the outputs weighted by the loss's gradient: there the labels, and so their noise, enter.
"""


@result
class TopEigenvalues:
    """The most extreme eigenvalues of a matrix, the most extreme first, each with its error."""

    values: FloatArray = described("eigenvalues of the matrix of the mean loss", dims=("eigenvalue",))
    residuals: FloatArray = described(
        "||H v - value v||: an eigenvalue lies within that distance", dims=("eigenvalue",)
    )
    errors: FloatArray = described(
        "of the values: residual^2 / gap to the others (Kato and Temple), at most the residual",
        dims=("eigenvalue",),
    )
    converged: NDArray[np.bool_] = described(
        "the residual is at most tol |value|, or rounding", dims=("eigenvalue",)
    )
    vectors: Tensor | None = described(
        "eigenvectors, orthonormal (PyHessian's only nearly so)", dims=("parameter", "eigenvalue")
    )
    products: int = described("matrix-vector products spent", unit="products")
    which: str = described("which end of the spectrum")
    tol: float = described("relative residual asked for")
    matrix: str = described("which matrix")
    method: str = described("who computed it")
    samples: int = described("samples in the mean loss")


@result
class TraceEstimate:
    """The trace of a matrix and its squared Frobenius norm, with their errors."""

    value: float = described("trace of the matrix of the mean loss: sum of its eigenvalues")
    standard_error: float = described("standard error of the value; NaN where the method gives none")
    low: float = described("lower end of the value's 95% interval")
    high: float = described("upper end of the value's 95% interval")
    squared_norm: float = described("squared Frobenius norm: sum of the squared eigenvalues")
    squared_norm_error: float = described("standard error of the squared norm")
    converged: bool = described("the interval is within the tolerance asked for")
    products: int = described("matrix-vector products spent", unit="products")
    matrix: str = described("which matrix")
    method: str = described("who computed it")
    samples: int = described("samples in the mean loss")


@result
class LayerTraces:
    """The traces of the blocks of a matrix that belong to one parameter tensor each."""

    layer: NDArray[np.str_] = described("name of the parameter tensor", dims=("layer",), coordinate=True)
    values: FloatArray = described("traces of the layers' diagonal blocks", dims=("layer",))
    standard_errors: FloatArray = described("of the values", dims=("layer",))
    parameters: NDArray[np.int64] = described("entries of each tensor", dims=("layer",))
    converged: bool = described("every 95% interval is within 2 rtol of the whole trace")
    products: int = described("matrix-vector products spent", unit="products")
    matrix: str = described("which matrix")
    samples: int = described("samples in the mean loss")


PARTS = {
    "functional": ("gauss-newton", "hessian"),
    "gauss-newton": ("gauss-newton",),
    "hessian": ("hessian",),
}
"""The products that each takes."""


def matvec_of(objective: Objective, matrix: str, *, expected: int) -> Callable[[Tensor], Tensor]:
    """Products with one of the objective's `MATRICES`, of which at least `expected` are to come.

    Raises:
        ValueError: unknown matrix.
    """
    if matrix not in MATRICES:
        raise ValueError(f"matrix: must be one of {', '.join(MATRICES)}, got {matrix!r}")
    for part in PARTS[matrix]:
        objective.expect(part, expected)
    return lambda block: MATRICES[matrix](objective, block)


def deflation(eigen: TopEigenvalues, objective: Objective, matrix: str) -> Deflation:
    """Eigenpairs found before as the subspace to take out.

    Raises:
        ValueError: pairs without vectors, or of another matrix, size or number of samples, or PyHessian's. That
            weights and data are the same is not checked, as it would cost products.
    """
    if eigen.method != "own":
        raise ValueError(f"deflate: needs orthonormal vectors, which method {eigen.method!r} does not give")
    if eigen.vectors is None:
        raise ValueError("deflate: holds no eigenvectors; they were dropped before it was stored")
    if eigen.matrix != matrix or eigen.vectors.shape[0] != objective.n_parameters:
        raise ValueError(
            f"deflate: holds eigenpairs of the {eigen.matrix} matrix of {eigen.vectors.shape[0]} parameters, not of "
            f"the {matrix} matrix of {objective.n_parameters}"
        )
    if eigen.samples != objective.n_samples:
        raise ValueError(
            f"deflate: holds eigenpairs of the mean loss over {eigen.samples} samples, not over these "
            f"{objective.n_samples}; find those of this objective"
        )
    values, residuals = (torch.from_numpy(a).to(objective.device) for a in (eigen.values, eigen.residuals))
    return Deflation(eigen.vectors.to(objective.device), values, residuals)


def top_eigenvalues(
    objective: Objective,
    k: int = 1,
    *,
    which: str = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    block: int | None = None,
    start: TopEigenvalues | Tensor | None = None,
    matrix: str = "hessian",
    seed: int = 0,
    method: str = "own",
) -> TopEigenvalues:
    """The k most extreme eigenvalues of a matrix at the objective's weights.

    Args:
        objective: whose matrix.
        k: how many, from 1 to the number of parameters.
        which: `"largest"`, `"smallest"` (algebraically) or `"magnitude"`.
        tol: residual asked for, relative to the eigenvalue. The error of the value is second order in it: with
            0.03 it is about 0.001.
        max_products: budget of products; 40 k + 60 if not given.
        block: vectors multiplied at a time, k if not given: eigenvalues repeated up to so often are found as
            often as they are there. 1 needs about half the products and finds one copy of each.
        start: begins from these vectors (n, m), or from the eigenvectors found at weights nearby, and a random one:
            the block is m + 1.
        matrix: `"hessian"`, `"gauss-newton"` or `"functional"` (Hessian less Gauss-Newton).
        seed: of the start vectors.
        method: `"own"`: block Lanczos with full reorthogonalisation, vectors in float64.
            `"pyhessian"`: PyHessian's power iteration, a second opinion; only for `which="magnitude"`, which is
            what it computes. The residuals are ours, also of its vectors.

    Raises:
        ValueError: an argument out of range.
    """
    if method not in ("own", "pyhessian"):
        raise ValueError(f"method: must be one of own, pyhessian, got {method!r}")
    if method == "pyhessian":
        if matrix != "hessian" or start is not None or block is not None:
            raise ValueError("method: PyHessian knows no other matrix, start or block; leave them out")
        return _pyhessian_eigenvalues(objective, k, which, tol, max_products, seed)
    vectors = start.vectors if isinstance(start, TopEigenvalues) else start
    if isinstance(start, TopEigenvalues) and vectors is None:
        raise ValueError("start: holds no eigenvectors; they were dropped before it was stored")
    n = objective.n_parameters
    pairs = top_eigenpairs(
        matvec_of(objective, matrix, expected=2 * k + 3),
        n,
        k,
        which=which,
        tol=tol,
        max_products=max_products,
        block=block,
        start=vectors,
        max_vectors=min(max(4 * k, k + 20), objective.memory_budget // (8 * n)),
        generator=torch.Generator(objective.device).manual_seed(seed),
        device=objective.device,
        precision=objective.dtype,
    )
    return TopEigenvalues(
        values=pairs.values.numpy(),
        residuals=pairs.residuals.numpy(),
        errors=pairs.errors.numpy(),
        converged=pairs.converged.numpy(),
        vectors=pairs.vectors,
        products=pairs.products,
        which=which,
        tol=tol,
        matrix=matrix,
        method="own",
        samples=objective.n_samples,
    )


def trace(
    objective: Objective,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    deflate: TopEigenvalues | None = None,
    matrix: str = "hessian",
    method: str | None = None,
) -> TraceEstimate:
    """The trace and the squared Frobenius norm of a matrix at the objective's weights.

    Args:
        objective: whose matrix.
        rtol: ends when the 95% interval of the trace is within +-2 rtol |value|; None spends the whole budget.
        max_products: budget of products.
        seed: of the probes.
        deflate: eigenpairs already found of the same objective: their part of the trace is exact, and only
            the rest is sampled.
        matrix: `"hessian"`, `"gauss-newton"` or `"functional"` (Hessian less Gauss-Newton).
        method: `"xtrace"`, `"hutch++"` or `"hutchinson"` (`landscape.krylov.traces.moments`); XTrace if not given, as
            far as its vectors fit the objective's memory budget, else Hutchinson's. `"pyhessian"`: PyHessian's,
            a second opinion; it gives no error.

    Raises:
        ValueError: an argument out of range.
    """
    if method == "pyhessian":
        if deflate is not None or matrix != "hessian":
            raise ValueError("deflate, matrix: PyHessian knows neither; leave them out")
        return _pyhessian_trace(objective, rtol, max_products, seed)
    if method is not None and method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, pyhessian, got {method!r}")
    if method is None:
        # four vectors a probe, two products a probe
        fits = 8 * objective.n_parameters * 2 * max_products <= objective.memory_budget
        method = "xtrace" if fits else "hutchinson"
    found = moments(
        matvec_of(objective, matrix, expected=min(12, max_products)),
        objective.n_parameters,
        method=method,
        rtol=rtol,
        max_products=max_products,
        deflate=None if deflate is None else deflation(deflate, objective, matrix),
        generator=torch.Generator(objective.device).manual_seed(seed),
        device=objective.device,
        precision=objective.dtype,
    )
    return TraceEstimate(
        value=found.trace.value,
        standard_error=found.trace.standard_error,
        low=found.trace.low,
        high=found.trace.high,
        squared_norm=found.square.value,
        squared_norm_error=found.square.standard_error,
        converged=found.converged,
        products=found.products,
        matrix=matrix,
        method=method,
        samples=objective.n_samples,
    )


def layer_traces(
    objective: Objective,
    *,
    rtol: float | None = 0.05,
    max_products: int = 200,
    seed: int = 0,
    deflate: TopEigenvalues | None = None,
    matrix: str = "hessian",
) -> LayerTraces:
    """The trace of each parameter tensor's diagonal block, all from the same products.

    Their sum is the trace of the whole matrix. Where one layer is wanted with more precision, take
    `trace(objective.subset(parameters=...))`.

    Args:
        objective: whose matrix.
        rtol: ends when each 95% interval is within +-2 rtol of the whole trace; None spends the whole budget.
        max_products: budget of products, at least 2.
        seed: of the probes.
        deflate: eigenpairs already found of the same objective, whose part is exact.
        matrix: as for `trace`.

    Raises:
        ValueError: an argument out of range.
    """
    sizes = [shape.numel() for shape in objective.shapes]
    estimates, converged, products = block_traces(
        matvec_of(objective, matrix, expected=min(16, max_products)),
        sizes,
        rtol=rtol,
        max_products=max_products,
        deflate=None if deflate is None else deflation(deflate, objective, matrix),
        generator=torch.Generator(objective.device).manual_seed(seed),
        device=objective.device,
    )
    return LayerTraces(
        layer=np.array(objective.names),
        values=np.array([estimate.value for estimate in estimates]),
        standard_errors=np.array([estimate.standard_error for estimate in estimates]),
        parameters=np.array(sizes),
        converged=converged,
        products=products,
        matrix=matrix,
        samples=objective.n_samples,
    )


def _pyhessian_eigenvalues(
    objective: Objective, k: int, which: str, tol: float, max_products: int | None, seed: int
) -> TopEigenvalues:
    if which != "magnitude":
        raise ValueError(
            f"which: PyHessian's power iteration finds the largest by magnitude; pass 'magnitude', got {which!r}"
        )
    if not 1 <= k <= objective.n_parameters:
        raise ValueError(
            f"k: must lie between 1 and the number of parameters {objective.n_parameters}, got {k}"
        )
    iterations = max(1, (100 * k if max_products is None else max_products) // k)
    found, products = ask_pyhessian(
        objective, seed, lambda h: h.eigenvalues(maxIter=iterations, tol=tol, top_n=k)
    )
    columns = [torch.cat([part.flatten() for part in vector]) for vector in found[1]]
    vectors = torch.stack(columns, 1).double()
    values = torch.tensor(found[0], dtype=torch.float64, device=objective.device)
    residuals = torch.linalg.vector_norm(objective.hvp(vectors).double() - vectors * values, dim=0)
    return TopEigenvalues(
        values=values.cpu().numpy(),
        residuals=residuals.cpu().numpy(),
        errors=residuals.cpu().numpy(),
        converged=(residuals <= tol * values.abs()).cpu().numpy(),
        vectors=vectors,
        products=products + k,
        which=which,
        tol=tol,
        matrix="hessian",
        method="pyhessian",
        samples=objective.n_samples,
    )


def _pyhessian_trace(objective: Objective, rtol: float | None, max_products: int, seed: int) -> TraceEstimate:
    tolerance = 0.0 if rtol is None else rtol
    values, products = ask_pyhessian(objective, seed, lambda h: h.trace(maxIter=max_products, tol=tolerance))
    return TraceEstimate(
        value=float(np.mean(values)),
        standard_error=math.nan,
        low=math.nan,
        high=math.nan,
        squared_norm=math.nan,
        squared_norm_error=math.nan,
        converged=False,
        products=products,
        matrix="hessian",
        method="pyhessian",
        samples=objective.n_samples,
    )
