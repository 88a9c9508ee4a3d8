"""The empirical Fisher matrix of a mean loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from landscape.fx.plain_formulas import twice_differentiable
from landscape.loss.batches import rows_of, samples_in
from landscape.loss.counts import Pair
from landscape.loss.derivatives import derivative
from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.loss.precision import full_float32
from landscape.loss.rows_of_outputs import have_rows
from landscape.loss.samples import Chunk
from landscape.loss.weights import with_weights
from landscape.matrices.of_objective import MatrixOfObjective


@matrix_of_loss("empirical-fisher")
class EmpiricalFisher(MatrixOfObjective):
    """The mean of g g^T over the samples, where g is the gradient of a sample's loss.

    Samples have the same weights as in the mean loss. A batch that cannot be cut is one sample. A regularizer depends
    on no sample, and is no part of the matrix. The empirical Fisher matrix is not the Fisher matrix, whose labels are
    drawn from the model and which is the Gauss-Newton matrix for cross-entropy. Far from a minimum it does not
    approximate the Fisher matrix either (Kunstner et al. 2019, arXiv:1905.12558).

    A sample is a row of a batch. curvlinops' `EFLinearOperator` counts differently: for a loss that is the mean of C
    outputs of a sample, its matrix is C times this one; and where a row has several labels, as for tokens and pixels,
    each of them is a sample there.

    Args:
        objective: its loss is differentiated.
        theta: the weights (n,); those of the objective if not given.
    """

    def expect(self, products: int) -> None:
        """Does nothing, because all products are direct."""

    @full_float32()
    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (n,) or a block of vectors (n, k).

        Raises:
            ValueError: the vectors have another length.
        """
        objective = self._objective
        n = len(self._theta)
        if vectors.ndim not in (1, 2) or len(vectors) != n:
            raise ValueError(f"vectors: must be ({n},) or ({n}, k), got {tuple(vectors.shape)}")
        block = vectors.to(objective.theta).reshape(n, -1)
        total = torch.zeros(block.shape, dtype=torch.float64, device=self.device)
        with objective.exclusive:
            with objective.ranks.together():
                objective.check_that_derivatives_exist()
                for chunk in objective.chunks:
                    if chunk.weight:
                        total += self._of_chunk(chunk, block)
            product = objective.ranks.vector_over_samples(total) / objective.weight
            objective.products += block.shape[1]
        return product.to(self.dtype).view(vectors.shape)

    def _product_of_chunk(self, index: int, chunk: Chunk, block: Tensor) -> Tensor:  # noqa: ARG002
        return self._of_chunk(chunk, block) / chunk.weight

    @torch.enable_grad()
    def _of_chunk(self, chunk: Chunk, block: Tensor) -> Tensor:
        """J^T diag(weights) J times the block, where J is the Jacobian of the samples' losses.

        J^T u is linear in u. So J times a vector is the gradient of (J^T u) . vector with respect to u.
        """
        variable = self._theta.detach().requires_grad_()

        def products(model: nn.Module) -> Tensor:
            losses, weights = self._losses(model, chunk)
            direction = torch.zeros_like(losses, requires_grad=True)
            pulled = derivative((losses * direction).sum(), variable, create_graph=True)
            columns = []
            for vector in block.T:
                moved = derivative(pulled @ vector, direction, retain_graph=True) * weights
                columns.append(derivative((losses * moved).sum(), variable, retain_graph=True))
            return torch.stack(columns, 1)

        with twice_differentiable():
            return with_weights(self._objective.model, self._objective.unflatten(variable), products)

    def _losses(self, model: nn.Module, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """The losses of the samples of a weight above 0, and these weights."""
        objective = self._objective
        if samples_in(chunk.pair) is None:
            inputs, targets = chunk.read()
            loss = objective.loss_fn(objective.run(model, inputs), targets)
            return loss.reshape(1), torch.full_like(loss.detach().reshape(1), chunk.weight)
        weights = objective.counting.of_samples(chunk.pair).cpu()
        counted = weights.nonzero().flatten()
        inputs, targets = chunk.read()
        outputs = objective.run(model, inputs)
        has_rows = have_rows(objective, outputs, chunk.pair[0], partial(objective.run, model))
        # the model may have changed the inputs
        rows, losses = (chunk.read()[0], targets), []
        for index in counted.tolist():
            row = slice(index, index + 1)
            one: Pair = rows_of(rows, row)
            scores = rows_of(outputs, row) if has_rows else objective.run(model, one[0])
            losses.append(objective.loss_fn(scores, one[1]).reshape(()))
        stacked = torch.stack(losses)
        return stacked, weights[counted].to(stacked)
