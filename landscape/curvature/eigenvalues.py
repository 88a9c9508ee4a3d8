"""The most extreme eigenvalues of a matrix of the mean loss."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.curvature.with_pyhessian import ask_pyhessian
from landscape.guards.repeated_runs import HALF
from landscape.krylov.counted import counted_products
from landscape.krylov.deflation import Deflation
from landscape.krylov.eigenpairs import (
    RESIDUALS,
    SMALL,
    Eigenpairs,
    check_start,
    default_budget,
    fewest_vectors,
    most_vectors,
    top_eigenpairs,
    width_of,
)
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_whole_or_sharded
from landscape.operator import Operator
from landscape.progress import Progress
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.seeds import normal_like

MULTIPLES = (1 / 3, 0.7, 1.9)
"""Multiples of a vector, no powers of 2, whose products with a matrix round in other ways than that of the vector."""
PROBES = 3
"""Random vectors that show whether a matrix is symmetric."""
ROUNDINGS = 5.0
"""The product that the pairs give may differ from the true one by so many roundings of one product. Where predictions
are sure, it differed by up to one."""


@result
class TopEigenvalues(DrawnResult):
    """The most extreme eigenvalues of a matrix, the most extreme first, each with its error."""

    values: FloatArray = described("eigenvalues of the matrix of the mean loss", dims=("eigenvalue",))
    residuals: FloatArray = described(
        "||H v - value v||: an eigenvalue lies within that distance", dims=("eigenvalue",)
    )
    errors: FloatArray = described(
        "of the values: three residuals; one holds some eigenvalue, three the wanted one if two near ones mix",
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

    def kept_vectors(self, field: str) -> Tensor:
        """The eigenvectors (n, k).

        Args:
            field: the argument that an error names.

        Raises:
            ValueError: the result was stored without them.
        """
        if self.vectors is None:
            raise ValueError(f"{field}: holds no eigenvectors; they were dropped before it was stored")
        return self.vectors


def deflation(eigen: TopEigenvalues, objective: Objective, matrix: str, field: str = "deflate") -> Deflation:
    """The subspace of known eigenpairs, for deflation.

    Pairs of other weights or data would put a wrong part into a result that is called exact. One product, which no
    budget counts, finds them: the matrix times the sum of the vectors must be the sum of the values times the vectors,
    to the pairs' residuals.

    Args:
        eigen: the pairs.
        objective: whose pairs they are.
        matrix: of which matrix they should be.
        field: the argument that an error names.

    Raises:
        ValueError: the pairs have no vectors, come from PyHessian, or belong to another matrix, size or number of
            samples, or to other weights or data.
    """
    if eigen.method != "own":
        raise ValueError(f"{field}: needs orthonormal vectors, which method {eigen.method!r} does not give")
    vectors = eigen.kept_vectors(field)
    if eigen.matrix != matrix or len(vectors) != objective.n_parameters:
        raise ValueError(
            f"{field}: holds eigenpairs of the {eigen.matrix} matrix of {len(vectors)} parameters, not of "
            f"the {matrix} matrix of {objective.n_parameters}"
        )
    if eigen.samples != objective.n_samples:
        raise ValueError(
            f"{field}: holds eigenpairs of the mean loss over {eigen.samples} samples, not over these "
            f"{objective.n_samples}; find those of this objective"
        )
    values, residuals = (torch.from_numpy(a).to(objective.device) for a in (eigen.values, eigen.residuals))
    # those of a search in float32 are orthonormal to its rounding only
    known = Deflation(torch.linalg.qr(vectors.to(objective.device, torch.float64)).Q, values, residuals)
    _check_pairs(known, vectors.dtype, objective, matrix, field)
    return known


def _check_pairs(
    known: Deflation, found_in: torch.dtype, objective: Objective, matrix: str, field: str
) -> None:
    """Raises ValueError if the pairs, which were found in a dtype, are not those of the matrix."""
    if not len(known.values):
        return
    operator = matrix_named(matrix, objective)
    whole = known.basis.sum(1, keepdim=True)
    product = (operator @ whole.to(objective.theta)).double()
    distance = float(torch.linalg.vector_norm(product.squeeze(1) - known.basis @ known.values))
    rounding = math.sqrt(torch.finfo(objective.dtype).eps) * float(known.values.abs().max())
    allowed = RESIDUALS * float(known.residuals.sum()) + rounding
    if distance > allowed:
        coarser = max(1.0, torch.finfo(found_in).eps / torch.finfo(objective.dtype).eps)
        allowed += ROUNDINGS * coarser * _rounding(operator, whole, product, objective)
    # a matrix that is not finite has no pairs, which the measure itself says
    if distance > allowed:
        raise ValueError(
            f"{field}: holds eigenpairs of other weights or data: the {matrix} matrix times the sum of the vectors is "
            f"{distance:.3g} from what the pairs say, which their residuals allow to be {allowed:.3g}; find the pairs "
            "of this objective, or pass these as start="
        )


def _rounding(operator: Operator, vector: Tensor, product: Tensor, objective: Objective) -> float:
    """The rounding of a product with a matrix, as it shows.

    Terms that cancel leave a small product and their whole rounding. At weights whose predictions are sure, an
    eigenvalue may be a millionth of the terms. So the rounding is not a share of the product. It shows in two ways:
    products with multiples of the vector are no multiples of the product, and the matrix is not symmetric. For normal
    u, the mean square of u . (A v) - v . (A u) is the squared norm of (A - A^T) v.

    Args:
        operator: the matrix A.
        vector: float64 (n, 1).
        product: float64 (n, 1), the matrix times the vector.
        objective: whose matrix it is.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.tensor(MULTIPLES, dtype=torch.float64, device=vector.device)
    probes = normal_like((len(vector), PROBES), objective.theta, generator)
    columns = torch.cat([(vector * factors).to(objective.theta), probes], 1)
    multiples, images = (operator @ columns).double().split([len(MULTIPLES), PROBES], 1)
    apart = torch.linalg.vector_norm(multiples / factors - product, dim=0).max()
    skew = (probes.double().T @ product - images.T @ vector).square().mean().sqrt()
    return max(float(apart), float(skew))


@of_whole_or_sharded
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
    progress: Progress | bool | None = None,
) -> TopEigenvalues:
    """The k most extreme eigenvalues of a matrix at the objective's weights.

    Under FSDP2 the search holds a part of each vector on each rank, and the result has no eigenvectors.

    Args:
        objective: gives the matrix.
        k: number of eigenvalues, from 1 to the number of parameters.
        which: `"largest"`, `"smallest"` (algebraically) or `"magnitude"`.
        tol: residual that is asked for, relative to the eigenvalue. The value is nearer to an eigenvalue than the
            residual: by its square over the gap to the next one. But a residual cannot tell to which. Where the random
            start has little of the first eigenvector, a search with a loose tol (0.01 or more) ends at the second, and
            says converged: the few products that it took did not yet show the first. A start of several vectors
            (`block`) or a smaller tol makes this rare.
        max_products: most products that may be spent; 40 k + 60 if not given.
        block: number of vectors that are multiplied at a time, k if not given. All copies of an eigenvalue that is
            repeated up to `block` times are found. A block of 1 needs about half the products and finds one copy.
        start: vectors (n, m) from which the search begins, such as the eigenvectors at weights nearby. One random
            vector joins them, so that the block is m + 1. With `block=1` the search begins from their sum, which
            takes 3 or 4 products for one eigenvalue that has hardly moved.
        matrix: `"hessian"`, `"gauss-newton"` or `"functional"` (Hessian minus Gauss-Newton).
        seed: seed of the start vectors.
        method: `"own"`: block Lanczos with full reorthogonalization, vectors in the objective's precision.
            `"pyhessian"`: a second opinion by PyHessian's power iteration, which only finds `which="magnitude"`. This
            function computes the residuals of its vectors.
        progress: called with the products spent and the most that may be spent. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range, or the memory budget has no room for the fewest vectors of a search.
    """
    if method not in ("own", "pyhessian"):
        raise ValueError(f"method: must be one of own, pyhessian, got {method!r}")
    if method == "pyhessian":
        if matrix != "hessian" or start is not None or block is not None:
            raise ValueError("method: PyHessian knows no other matrix, start or block; leave them out")
        return _pyhessian_eigenvalues(objective, k, which, tol, max_products, seed)
    vectors = start.kept_vectors("start") if isinstance(start, TopEigenvalues) else start
    if start is not None and objective.ranks.share_vectors:
        raise ValueError("start: a search under FSDP2 begins from random vectors alone; leave it out")
    n = objective.n_parameters
    check_start(vectors, n)
    operator = matrix_named(matrix, objective)
    width = width_of(k, block, vectors, n)
    needs = (
        f"top_eigenvalues with k={k}" if width == k else f"top_eigenvalues with k={k} in blocks of {width}"
    )
    # arguments out of range are named by the search
    least = min(n, fewest_vectors(max(k, 1), max(width, 1)))
    objective.memory.check_room(least, needs)
    operator.expect(2 * k + 3)
    most = max(least, n if n <= SMALL else min(n, most_vectors(k)))
    budget = default_budget(k) if max_products is None else max_products
    # looks at float64 copies once, which are given back before vectors are held
    objective.check_that_derivatives_exist()
    with (
        objective.memory.room_for_vectors(most, least, needs) as count,
        counted_products(operator, budget, progress, "eigenvalues") as counted,
    ):
        pairs = top_eigenpairs(
            counted,
            k,
            which=which,
            tol=tol,
            max_products=budget,
            block=block,
            start=vectors,
            max_vectors=count,
            generator=objective.ranks.generator("start of a search for eigenvalues", seed),
        )
    _warn_of_rounding(pairs, tol, objective.dtype)
    return TopEigenvalues(
        values=pairs.values.numpy(),
        residuals=pairs.residuals.numpy(),
        errors=pairs.errors.numpy(),
        converged=pairs.converged.numpy(),
        # no result holds a part of a vector, which another function would take for a whole one
        vectors=None if objective.ranks.share_vectors else pairs.vectors,
        products=pairs.products,
        which=which,
        tol=tol,
        matrix=matrix,
        method="own",
        samples=objective.n_samples,
    )


def _warn_of_rounding(pairs: Eigenpairs, tol: float, dtype: torch.dtype) -> None:
    """Warns if pairs converged in half precision, whose rounding is larger than the tolerance that was asked for."""
    relative = (pairs.errors / pairs.values.abs())[pairs.converged]
    if dtype in HALF and len(relative) and relative.max() > RESIDUALS * tol:
        warnings.warn(
            f"tol: {dtype} rounds by more than the tol of {tol:g}: the residuals give errors of "
            f"{float(relative.max()):.2g} of the values, rounding within the model can make larger ones, as at the "
            "kinks of a ReLU, and converged says only that more products would not help; for smaller errors give the "
            "Objective dtype=torch.float32",
            stacklevel=5,
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
        errors=RESIDUALS * residuals.cpu().numpy(),
        converged=(residuals <= tol * values.abs()).cpu().numpy(),
        vectors=vectors,
        products=products + k,
        which=which,
        tol=tol,
        matrix="hessian",
        method="pyhessian",
        samples=objective.n_samples,
    )
