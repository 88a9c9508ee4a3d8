"""The functional Hessian of a mean loss: the Hessian minus the Gauss-Newton matrix."""

from __future__ import annotations

from torch import Tensor

from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.loss.objective import Objective
from landscape.loss.samples import Chunk
from landscape.matrices.gauss_newton import GaussNewton
from landscape.matrices.hessian import Hessian
from landscape.matrices.of_objective import MatrixOfObjective


@matrix_of_loss("functional")
class FunctionalHessian(MatrixOfObjective):
    """The curvature of the outputs, weighted by the gradient of the loss in the outputs (Singh et al. 2021).

    It is the Hessian minus the Gauss-Newton matrix. For cross-entropy it is the only part of the Hessian that depends
    on the labels and so on their noise. A product costs one product with each of the two matrices.
    """

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        super().__init__(objective, theta)
        self._hessian = Hessian(objective, theta)
        self._gauss_newton = GaussNewton(objective, theta)

    def expect(self, products: int) -> None:
        """Says how many products are to come; see `MeanOverSamples`."""
        self._hessian.expect(products)
        self._gauss_newton.expect(products)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (n,) or a block of vectors (n, k)."""
        return self._hessian @ vectors - self._gauss_newton @ vectors

    def _prepare(self, block: Tensor) -> None:
        self._hessian._prepare(block)
        self._gauss_newton._prepare(block)

    def _product_of_chunk(self, index: int, chunk: Chunk, block: Tensor) -> Tensor:
        hessian = self._hessian._product_of_chunk(index, chunk, block)
        return hessian - self._gauss_newton._product_of_chunk(index, chunk, block)
