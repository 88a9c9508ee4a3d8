"""What matrices that are a mean over the samples have in common: products are summed over the chunks of the data."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from landscape.loss.batches import copied_to
from landscape.loss.objective import Objective
from landscape.loss.precision import full_float32
from landscape.matrices.of_objective import MatrixOfObjective
from landscape.matrices.products import Products
from landscape.matrices.rule import Rule
from landscape.matrices.second_derivatives import COPIES, SAMPLES, check_second_derivatives


class MeanOverSamples(MatrixOfObjective):
    """A symmetric matrix (n, n) of an objective's mean loss that is the mean of a matrix of each sample.

    A subclass only says how one chunk is multiplied. All instances for one objective share what its products keep.

    Args:
        objective: whose mean loss.
        theta: the weights (n,); the objective's own if not given.

    Attributes:
        rule: how the matrix of one chunk is multiplied.
    """

    rule: ClassVar[Rule]

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        super().__init__(objective, theta)
        with objective.exclusive:
            self._products = objective.memory.shared(type(self), self._new_products)

    @property
    def is_traced(self) -> bool:
        """Whether products are traced by now, rather than direct."""
        return bool(self._products.is_traced)

    def expect(self, products: int) -> None:
        """Says that as many products are to come, so that whether to trace can be decided now."""
        with self._objective.exclusive:
            self._products.expect(products)

    @full_float32()
    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (n,) or a block of vectors (n, k).

        Raises:
            ValueError: vectors of another length, or none; or a model whose second derivatives are wrong.
            RuntimeError: in `torch.inference_mode()`, where no derivative can be had.
        """
        n = self.dimension
        if vectors.ndim not in (1, 2) or len(vectors) != n or vectors.numel() == 0:
            raise ValueError(
                f"vectors: must be ({n},) or ({n}, k) with k at least 1, got {tuple(vectors.shape)}"
            )
        objective = self._objective
        objective.check_that_derivatives_exist()
        block = vectors.to(objective.theta).reshape(n, -1)
        with objective.exclusive:
            self._check_once()
            product = objective.summed(self._products(self._theta, block))
            product /= objective.weight
            if objective.penalty:
                product += objective.penalty.product(self._theta, block)
            objective.products += block.shape[1]
        return product.to(self.dtype).view(vectors.shape)

    def _check_once(self) -> None:
        objective = self._objective
        copies_fit = COPIES * 8 * self.dimension <= objective.memory_budget
        if type(self) in objective.verified or not copies_fit:
            return
        objective.verified.add(type(self))
        data = copied_to(objective.chunks.first(SAMPLES), self.device)
        rule, model, layout = self.rule, objective.model, objective.layout
        check_second_derivatives(rule, model, objective.run, layout, objective.theta, data, objective.loss_fn)

    def _new_products(self) -> Products:
        objective = self._objective
        return Products(
            self.rule,
            objective.model,
            objective.run,
            objective.layout,
            objective.loss_fn,
            objective.chunks,
            objective.memory,
            linearize=objective.linearize,
            compile_mode=objective.compile_mode,
        )
