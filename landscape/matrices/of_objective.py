"""The base of all matrices of a mean loss: weights, size, dtype and device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from landscape.data.samples import Chunk
from landscape.loss.objective import Objective
from landscape.model.given_vectors import vector_of
from landscape.model.precision import full_float32
from landscape.ranks import Ranks


class MatrixOfObjective(ABC):
    """A symmetric matrix (n, n) of an objective's mean loss at one weight vector.

    Args:
        objective: its mean loss has this matrix.
        theta: the weights (n,); those of the objective if not given.
    """

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        self._objective = objective
        self._theta = objective.point(theta)

    @property
    def dimension(self) -> int:
        """The number n of weights, on all ranks together."""
        return self._objective.n_parameters

    @property
    def ranks(self) -> Ranks:
        """The processes that measure together."""
        return self._objective.ranks

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which products are computed."""
        return self._objective.dtype

    @property
    def device(self) -> torch.device:
        """The device on which products are computed."""
        return self._objective.device

    def own_vectors(self, vectors: object) -> Tensor:
        """Vectors (n,) or (n, k) that a caller gave, in the dtype and on the device of the weights.

        Raises:
            TypeError: they are no vectors, such as a model.
            ValueError: the vectors have another length, are complex, or there are none.
        """
        n = len(self._theta)
        own = vector_of("vectors", vectors, self._theta)
        if own.ndim not in (1, 2) or len(own) != n or own.numel() == 0:
            raise ValueError(f"vectors: must be ({n},) or ({n}, k) with k at least 1, got {tuple(own.shape)}")
        return own.to(self._theta)

    def of_regularizer(self, block: Tensor) -> Tensor | float:  # noqa: ARG002
        """What a regularizer, which no sample enters, adds to the product with a block (n, k)."""
        return 0.0

    @full_float32()
    def of_chunks(
        self, block: Tensor, measure: Callable[[Tensor, Tensor], Tensor], *, columns: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `measure` says of each chunk's product: the matrix of the chunk's mean loss times a block (n, k).

        A regularizer is left out. The cost is one product a vector, however many chunks there are. The data are read
        once, because a stream may give its samples in another order, and so other chunks, when it is read again.

        Args:
            block: vectors (n, k) of any dtype, on the objective's device.
            measure: some of the vectors (n, c) and their products (n, c), in float64 -> a tensor of any shape.
            columns: most vectors that are multiplied at a time; all of them if not given. Their measures are joined
                along the last axis.

        Returns:
            The weights (chunks,) and the measures (chunks, ...) of the chunks that count, on the CPU in float64.
        """
        objective = self._objective
        parts = block.split(columns or block.shape[1], dim=1)
        weights, measures = [], []
        with objective.exclusive, objective.ranks.together():
            objective.check_that_derivatives_exist()
            self._prepare(parts[0].to(objective.theta))
            for index, chunk in enumerate(objective.chunks):
                if chunk.weight:
                    weights.append(chunk.weight)
                    found = []
                    for vectors in parts:
                        product = self._product_of_chunk(index, chunk, vectors.to(objective.theta)).double()
                        found.append(measure(vectors.double(), product).cpu())
                    measures.append(torch.cat(found, -1))
            objective.products += block.shape[1]
        return torch.tensor(weights, dtype=torch.float64, device="cpu"), torch.stack(measures)

    def _prepare(self, block: Tensor) -> None:  # noqa: B027
        """Prepares for the products of the chunks with this block, where that saves time."""

    @abstractmethod
    def _product_of_chunk(self, index: int, chunk: Chunk, block: Tensor) -> Tensor:
        """The matrix of one chunk's mean loss times the block (n, k)."""
