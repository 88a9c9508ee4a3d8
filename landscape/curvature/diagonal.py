"""The diagonal of a matrix of the mean loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscape.checks import check_rtol
from landscape.krylov.counted import counted_products
from landscape.krylov.diagonal import diagonal_of
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.progress import Progress
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.seeds import generator_for


@result
class MatrixDiagonal(DrawnResult):
    """The diagonal entries of a matrix, in the order of the weights, with their errors."""

    values: FloatArray = described("diagonal entries, one a weight", dims=("weight",))
    standard_errors: FloatArray = described(
        "of the values, over probes; 0 where exact; their intervals are Student's, of products - 1 degrees of freedom",
        dims=("weight",),
    )
    layer: NDArray[np.str_] = described("names of the parameter tensors", dims=("layer",), coordinate=True)
    parameters: NDArray[np.int64] = described("entries of each tensor", dims=("layer",))
    converged: bool = described("the errors are within rtol of the diagonal, in root mean square")
    products: int = described("matrix-vector products spent", unit="products")
    matrix: str = described("which matrix")
    samples: int = described("samples in the mean loss")


@of_objective
def diagonal(
    objective: Objective,
    *,
    rtol: float | None = 0.1,
    max_products: int = 200,
    seed: int = 0,
    matrix: str = "hessian",
    progress: Progress | bool | None = None,
) -> MatrixDiagonal:
    """The diagonal of a matrix at the objective's weights. It is exact if `max_products` reaches the number of weights.

    The other entries of a row are the noise of its diagonal entry. So small diagonal entries in rows with large entries
    stay uncertain, and their standard errors say so.

    Args:
        objective: gives the matrix.
        rtol: sampling ends when the standard errors are at most rtol of the diagonal, both in root mean square; None
            spends the whole budget.
        max_products: most products that may be spent, at least 2.
        seed: seed of the probes.
        matrix: `"hessian"`, `"gauss-newton"`, `"empirical-fisher"` or `"functional"`.
        progress: called with the products spent and the most that may be spent. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range.
    """
    if max_products < 2:
        raise ValueError(f"max_products: must be at least 2, got {max_products}")
    check_rtol(rtol)
    # three sums, a fourth that takes the place of one, a probe and its product
    objective.memory.check_room(6, "diagonal", in_float64=True)
    operator = matrix_named(matrix, objective)
    operator.expect(min(max_products, objective.n_parameters))
    with counted_products(operator, max_products, progress, "diagonal") as counted:
        found = diagonal_of(
            counted,
            rtol=rtol,
            max_products=max_products,
            generator=generator_for("probes of a diagonal", seed),
        )
    return MatrixDiagonal(
        values=found.values.cpu().numpy(),
        standard_errors=found.standard_errors.cpu().numpy(),
        layer=np.array(objective.names),
        parameters=np.array([shape.numel() for shape in objective.shapes]),
        converged=found.converged,
        products=found.products,
        matrix=matrix,
        samples=objective.n_samples,
    )
