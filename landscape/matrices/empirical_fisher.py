"""The empirical Fisher matrix of a mean loss."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from landscape.data.batches import copied_to, rows_of, samples_in
from landscape.data.samples import Chunk
from landscape.fx.plain_formulas import twice_differentiable
from landscape.loss.matrices_by_name import matrix_of_loss
from landscape.loss.rows_of_outputs import have_rows
from landscape.matrices.of_objective import MatrixOfObjective
from landscape.model.derivatives import derivative
from landscape.model.long_vectors import norm, power_of_two
from landscape.model.precision import full_float32
from landscape.model.weights import with_weights
from landscape.ranks import is_settled

ALLOWED = 0.02
"""Share by which the sum of the derivatives of the samples' losses may differ from the derivative of their sum."""

ROUNDING = 100
"""Both may also differ by this many units in the last place."""


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

    _has_two_derivatives = True
    _was_compared = False

    def expect(self, products: int) -> None:
        """Does nothing, because all products are direct."""

    @full_float32()
    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times a vector (n,) or a block of vectors (n, k).

        Raises:
            TypeError: they are no vectors, such as a model.
            ValueError: the vectors have another length, there are none, or the products of gradients are no numbers of
                the dtype.
        """
        objective = self._objective
        vectors = self.own_vectors(vectors)
        block = vectors.reshape(len(vectors), -1)
        total = torch.zeros(block.shape, dtype=torch.float64, device=self.device)
        with objective.exclusive:
            with objective.ranks.together():
                objective.check_that_derivatives_exist()
                for chunk in objective.chunks:
                    if chunk.weight:
                        total += self._of_chunk(chunk, block)
            product = objective.ranks.vector_over_samples(total) / objective.weight
            objective.products += block.shape[1]
        _check_the_range(product, self.dtype)
        return product.to(self.dtype).view(vectors.shape)

    def _product_of_chunk(self, index: int, chunk: Chunk, block: Tensor) -> Tensor:  # noqa: ARG002
        return self._of_chunk(chunk, block) / chunk.weight

    @torch.enable_grad()
    def _of_chunk(self, chunk: Chunk, block: Tensor) -> Tensor:
        """J^T diag(weights) J times the block, where J is the Jacobian of the samples' losses."""
        variable = self._theta.detach().requires_grad_()

        def products(model: nn.Module) -> Tensor:
            losses, weights = self._losses(model, chunk)
            if not self._has_two_derivatives:
                return _by_gradients(losses, weights, variable, block)
            # a rank that holds a part of each vector does not know the whole sum
            is_part = self.ranks.share_vectors
            compares = not (self._was_compared or is_part)
            try:
                return _by_two_derivatives(
                    losses, weights, variable, block, compares=compares, is_part=is_part
                )
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or is_settled(error):
                    raise
                # an operation has no second derivative in torch, of which there are many messages
                self._has_two_derivatives = False
                return _by_gradients(losses, weights, variable, block)

        with twice_differentiable():
            found = with_weights(self._objective.model, self._objective.unflatten(variable), products)
        self._was_compared = True
        return found

    def _losses(self, model: nn.Module, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """The losses of the samples of a weight above 0, and these weights."""
        objective = self._objective
        if samples_in(chunk.pair) is None:
            inputs, targets = chunk.read()
            loss = objective.loss_fn(objective.run(model, inputs), targets)
            return loss.reshape(1), torch.full_like(loss.detach().reshape(1), chunk.weight)
        weights = objective.counting.of_samples(chunk.pair).cpu()
        counted = weights.nonzero().flatten()
        run = partial(objective.run, model)
        # a copy, because the model may change its inputs
        outputs = run(copied_to(chunk.pair[0], self.device)) if objective.has_outputs else None
        has_rows = have_rows(objective, outputs, chunk.pair[0], run)
        losses = []
        for index in counted.tolist():
            row = slice(index, index + 1)
            inputs, targets = rows_of(chunk.pair, row)
            scores = rows_of(outputs, row) if has_rows else run(copied_to(inputs, self.device))
            losses.append(objective.loss_fn(scores, copied_to(targets, self.device)).reshape(()))
        stacked = torch.stack(losses)
        return stacked, weights[counted].to(stacked)


def _check_the_range(product: Tensor, dtype: torch.dtype) -> None:
    """Checks that a product in float64 is one in another dtype too.

    Raises:
        ValueError: its largest entry is smaller than all numbers of full precision of the dtype, or larger.
    """
    largest, numbers = float(torch.linalg.vector_norm(product, math.inf)), torch.finfo(dtype)
    if not 0 < largest < math.inf or numbers.tiny <= largest <= numbers.max:
        return
    raise ValueError(
        f"matrix: entries of a product with the empirical Fisher matrix are up to {largest:.2g}, out of the range of "
        f"{str(dtype).removeprefix('torch.')}, because gradients enter it squared; give the Objective "
        "dtype=torch.float64, or multiply the loss by a constant"
    )


def _by_two_derivatives(
    losses: Tensor, weights: Tensor, variable: Tensor, block: Tensor, *, compares: bool, is_part: bool
) -> Tensor:
    """J^T diag(weights) J times the block, with two derivatives a vector.

    J^T u is linear in u. So J times a vector is the gradient of (J^T u) . vector with respect to u.

    Raises:
        RuntimeError: an operation has no second derivative; or, where it is compared, a wrong one.
    """
    direction = torch.zeros_like(losses, requires_grad=True)
    pulled = derivative((losses * direction).sum(), variable, create_graph=True)
    whole = derivative((losses * weights).sum(), variable, retain_graph=True) if compares else None
    columns = []
    for vector in block.T:
        moved = derivative(pulled @ vector, direction, retain_graph=True) * weights
        # a backward pass that detaches loses the dependence on u without an error
        if whole is not None and not _is_sum(moved, whole, vector):
            raise RuntimeError("the derivative of a backward pass is wrong")
        # squares of gradients may be smaller or larger than any number of the dtype; a backward pass that sums over
        # ranks needs one unit for all of them
        unit = moved.new_ones(()) if is_part else power_of_two(moved)
        found = derivative((losses * (moved / unit)).sum(), variable, retain_graph=True)
        columns.append(found.double() * unit.double())
    return torch.stack(columns, 1)


def _is_sum(moved: Tensor, whole: Tensor, vector: Tensor) -> bool:
    """Whether the derivatives of the samples' losses along a vector sum to that of their sum, or are no numbers."""
    rounding = ROUNDING * torch.finfo(whole.dtype).eps * norm(whole) * norm(vector)
    return not bool((moved.sum() - whole @ vector).abs() > ALLOWED * moved.abs().sum() + rounding)


def _by_gradients(losses: Tensor, weights: Tensor, variable: Tensor, block: Tensor) -> Tensor:
    """The same by the gradient of each sample."""
    total = torch.zeros_like(block, dtype=torch.float64)
    for loss, weight in zip(losses, weights, strict=True):
        gradient = derivative(loss, variable, retain_graph=True)
        total += weight * torch.outer(gradient.double(), (gradient @ block).double())
    return total
