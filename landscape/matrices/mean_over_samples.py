"""The base of matrices that are means over the samples. Products are summed over the chunks of the data."""

from __future__ import annotations

import weakref
from typing import ClassVar

from torch import Tensor

from landscape.data.samples import Chunk
from landscape.guards.no_numbers import are_numbers, warn_of_no_number
from landscape.loss.objective import Objective
from landscape.matrices.of_objective import MatrixOfObjective
from landscape.matrices.products import Products
from landscape.matrices.rule import Rule
from landscape.matrices.second_derivatives import check_second_derivatives
from landscape.model.precision import full_float32


class MeanOverSamples(MatrixOfObjective):
    """A symmetric matrix (n, n) of an objective's mean loss that is the mean of a matrix of each sample.

    A subclass only says how the matrix of one chunk is multiplied. All instances for one objective share the memory
    that their products keep.

    Args:
        objective: its mean loss has this matrix.
        theta: the weights (n,); those of the objective if not given.

    Attributes:
        rule: how the matrix of one chunk is multiplied.
    """

    rule: ClassVar[Rule]

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        super().__init__(objective, theta)
        self._was_looked_at = False
        with objective.exclusive:
            self._products = objective.memory.shared(type(self), self._new_products)

    @property
    def is_traced(self) -> bool:
        """Whether products are now traced rather than direct."""
        return bool(self._products.is_traced)

    def expect(self, products: int) -> None:
        """Announces a number of products, so that the matrix can decide now whether to trace."""
        with self._objective.exclusive:
            self._products.expect(products)

    @full_float32()
    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (n,) or a block of vectors (n, k).

        Raises:
            TypeError: they are no vectors, such as a model.
            ValueError: the vectors have another length, there are none, or the second derivatives of the model are
                wrong.
            RuntimeError: `torch.inference_mode()` is on, in which torch computes no derivatives.
        """
        objective, vectors = self._objective, self.own_vectors(vectors)
        block = vectors.reshape(len(vectors), -1)
        with objective.exclusive:
            with objective.ranks.together():
                objective.check_that_derivatives_exist()
                check_second_derivatives(type(self), objective)
                products = self._products(self._theta, block, objective.weight)
            product = objective.ranks.vector_over_samples(products)
            if objective.penalty:
                product = product + self.of_regularizer(block)
            objective.products += block.shape[1]
        self._look_at(product)
        return product.to(self.dtype).view(vectors.shape)

    def _look_at(self, product: Tensor) -> None:
        """Says why the first product at the objective's weights is no number, if it is none."""
        if self._was_looked_at or self._theta is not self._objective.theta:
            return
        self._was_looked_at = True
        if not are_numbers((product,)):
            warn_of_no_number(self._objective, of_product=True)

    def of_regularizer(self, block: Tensor) -> Tensor | float:
        """The Hessian of the regularizer times a block (n, k).

        Raises:
            ValueError: the second derivatives of the regularizer are wrong.
        """
        penalty = self._objective.penalty
        if not penalty:
            return 0.0
        if type(penalty) not in self._objective.verified:
            penalty.check_products(self._objective.theta)
            self._objective.verified = self._objective.verified | {type(penalty)}
        return penalty.product(self._theta, block)

    def _prepare(self, block: Tensor) -> None:
        check_second_derivatives(type(self), self._objective)
        self._products.prepare(self._theta, block.T.contiguous())

    def _product_of_chunk(self, index: int, chunk: Chunk, block: Tensor) -> Tensor:
        return self._products.of_chunk(index, chunk, block.T.contiguous()).T

    def _new_products(self) -> Products:
        objective = self._objective
        return Products(
            self.rule,
            objective.model,
            objective.run,
            objective.layout,
            objective.loss_fn,
            objective.chunks,
            # the memory holds these products; a cycle would keep the weights after the last use
            weakref.proxy(objective.memory),
            linearize=objective.linearize,
            compile_mode=objective.compile_mode,
            ranks=objective.ranks,
        )
